"""The tables of claims: they rest on sweeps that exist, and the papers' own numbers meet their rules."""

from __future__ import annotations

from functools import cache

import pytest

from ray_al.reproduction.claims import sweep_file
from ray_al.reproduction.papers import PAPERS
from ray_al.reproduction.rethinking_tables import TABLE2, TABLE3
from ray_al.reproduction.settings import data_name
from ray_al.storage import Storage
from tests.reproduction.fabricated import SWEEPS, all_claims, cells, lines, spread, sweep_of, write

WITHOUT_FILE = {sweep for paper in PAPERS.values() for sweep in paper.commands}
FIGURE4 = {"SEMI": (0.80, 0.9089, 0.93, 0.94, 0.95), "base": (0.40, 0.5089, 0.60, 0.68, 0.75)}


@cache
def grid(sweep: str) -> dict[tuple[str, str, str], list[int]]:
    raw = sweep_of(sweep_file(sweep).removeprefix("sweeps/").removesuffix(".yaml"))
    assert raw["name"] == sweep
    return {(dataset, learner, strategy): paid for dataset, learner, strategy, paid in cells(raw)}


def test_every_claim_is_about_arms_of_its_sweep():
    for claim in all_claims():
        for arm in claim.measure.arms:
            if arm.sweep in WITHOUT_FILE:
                continue
            held = [key for key in grid(arm.sweep) if key[1:] == (arm.learner, arm.strategy)]
            held = [key for key in held if arm.dataset in ("", key[0])]
            assert len(held) == 1, f"{claim.text}: {arm}"
            if isinstance(labels := getattr(claim.measure, "labels", None), int) and arm.strategy != "full":
                assert labels in grid(arm.sweep)[held[0]]


def test_every_sweep_of_the_papers_is_claimed_something_of():
    claimed = {sweep_file(arm.sweep) for claim in all_claims() for arm in claim.measure.arms}
    there = {f"sweeps/{path.name}" for path in SWEEPS.glob("*.yaml") if path.stem.split("_")[0] in PAPERS}
    assert there <= claimed


def test_every_sweep_as_it_stands_has_the_papers_data():
    for paper in PAPERS.values():
        for sweep in paper.data.keys() - WITHOUT_FILE:
            raw = sweep_of(sweep_file(sweep).removeprefix("sweeps/").removesuffix(".yaml"))
            held = {
                data_name(entry if isinstance(entry, dict) else {"name": entry}) for entry in raw["axes"]["dataset"]
            }
            assert held == set(paper.data[sweep])


def test_no_two_lines_are_the_same():
    for paper in PAPERS.values():
        for section in paper.sections:
            texts = [claim.text for claim in section.claims]
            assert len(texts) == len(set(texts))


def of_table3(data: str):
    """Five runs of each cell with the paper's mean and deviation."""

    def accuracy(dataset, learner, strategy, seed, labels):
        batch = 1000 if data.endswith("-1000") else 100
        column, cycle = TABLE3[data, learner], labels // batch - 1
        mean, std = column.get((cycle, strategy)) or column[cycle, "random"]  # the first cycle is shared
        key = (data, learner, cycle, strategy if cycle else "")
        return (mean + std * spread(5, *key)[seed]) / 100

    return accuracy


def of_table2(dataset, learner, strategy, seed, labels):
    cycle = labels // (100 if dataset == "cifar10" else 1000) - 1
    mean, std = TABLE2[dataset, strategy][cycle, learner]
    return (mean + std * spread(5, dataset, learner, strategy, cycle)[seed]) / 100


def of_figure4(dataset, learner, strategy, seed, labels):
    return FIGURE4[learner][labels // 10 - 1] + 0.02 * spread(5, learner, strategy, labels)[seed]


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    storage = Storage.open(tmp_path_factory.mktemp("reported"))
    for data in ("cifar10-100", "cifar10-1000", "cifar100-1000", "svhn-100"):
        write(storage, sweep_of(f"rethinking_table3_{data.replace('-', '_')}"), of_table3(data))
    write(storage, sweep_of("rethinking_table2"), of_table2)
    write(storage, sweep_of("rethinking_mnist"), of_figure4)
    return storage


def test_the_papers_own_numbers_meet_every_rule(reported):
    found = {name: line for name, line in lines("rethinking", reported).items() if line.ours}
    assert len(found) == 4 + 16 + 11 + 7 + 48 + 59 + 38 + 59 + 59
    assert [name for name, line in found.items() if line.verdict != "holds" or line.reduced] == []
    cell_lines = {name: line for name, line in found.items() if name.startswith("Table ")}
    for line in cell_lines.values():
        assert line.deviation == pytest.approx(0, abs=1e-12)
        assert line.ours.std == pytest.approx(line.claim.reported.std)
    for name, line in found.items():  # numbers of differences, which the tables of claims compute from those of cells
        if line.deviation == line.deviation and "MNIST" not in name:
            assert line.deviation == pytest.approx(0, abs=1e-12), name


def test_numbers_without_the_gain_fail(tmp_path):
    """With base's numbers for PRE+SEMI, what is about gains fails, and what is about base alone holds."""
    storage, base = Storage.open(tmp_path), of_table3("cifar10-100")
    raw = sweep_of("rethinking_table3_cifar10_100")
    write(storage, raw, lambda dataset, learner, *rest: base(dataset, "base", *rest))
    found = {name: line.verdict for name, line in lines("rethinking", storage).items()}
    section = "PRE and SEMI, CIFAR-10 with 100 labels a cycle: "
    about = {name.removeprefix(section): verdict for name, verdict in found.items() if name.startswith(section)}
    assert len(about) == 11
    assert set(about.values()) == {"fails"}
    acquisition = {name: verdict for name, verdict in found.items() if "CIFAR-10, 100 labels a cycle, base" in name}
    assert len(acquisition) == 3
    assert set(acquisition.values()) == {"holds"}
    table = [verdict for name, verdict in found.items() if name.startswith("Table III, CIFAR-10, 100 labels a cycle: ")]
    assert {"holds", "fails"} == set(table)
