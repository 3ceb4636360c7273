"""The sweeps of "Rethinking deep active learning": they are valid, and a reduced one runs to its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_al import load_epochs
from ray_al.assemble import run_locally
from ray_al.config import load_sweep
from ray_al.storage import Storage
from tests.cluster.test_command import ray_al

SWEEPS = Path(__file__).parent.parent.parent / "sweeps"


def full(name: str):
    return load_sweep(SWEEPS / f"rethinking_{name}.yaml", [])


@pytest.mark.parametrize(
    ("name", "cells"),
    [("mnist", 9), ("mnist_cpu", 2), ("table2", 16), ("table3_cifar10_100", 14), ("table3_cifar10_1000", 9)],
)
def test_the_reduced_sweeps_have_all_cells(name: str, cells: int) -> None:
    sweep = load_sweep(SWEEPS / f"rethinking_{name}.yaml", [], smoke=True)
    assert len(sweep.trajectories) == cells
    assert not [t for t in sweep.trajectories if t.strategy.name == "ceal" and t.learner.values["semi"]]


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize("name", ["mnist", "table3_cifar10_100", "table3_cifar10_1000"])
def test_the_full_sweeps_have_the_papers_settings(name: str) -> None:
    sweep = full(name)
    assert {t.seed for t in sweep.trajectories} == {0, 1, 2, 3, 4}
    for trajectory in sweep.trajectories:
        values, protocol = trajectory.learner.values, trajectory.protocol
        assert (values["epochs"], values["width"], values["lr"], values["k"]) == (200, 128, 0.2, 50)
        digits = name == "mnist"
        assert values["batch"] == (10 if digits else 32)
        if values["semi"]:
            assert (values["semi_batch"], values["labeled_batch"]) == ((64, 10) if digits else (128, 50))
        budget = {"mnist": 10, "table3_cifar10_100": 100, "table3_cifar10_1000": 1000}[name]
        assert (protocol.initial, protocol.batch, protocol.rounds) == (budget, budget, 5)
        assert protocol.total_labels == 5 * budget


def test_every_setting_of_table_two_runs(tmp_path: Path) -> None:
    words = [f"storage={tmp_path}", "zip=[]", "axes.dataset=[{name: digits, limit: 150}]"]
    sweep = load_sweep(
        SWEEPS / "rethinking_table2.yaml", [*words, "protocol=[{initial: 10, batch: 5, rounds: 2}]"], True
    )
    first = {}
    for trajectory in sweep.trajectories:
        records = list(run_locally(sweep, trajectory, Storage.open(tmp_path), share_fits=True))
        assert [record.labels for record in records] == [10, 15]
        first.setdefault(trajectory.name.learner, set()).add(records[0].nll)
    assert set(first) == {"base", "PRE", "SEMI", "PRE+SEMI"}
    assert all(len(values) == 1 for values in first.values())  # the strategies share their first model
    assert len(set.union(*first.values())) == 4
    assert len(list((tmp_path / "artifacts").glob("deepcluster-*"))) == 1
    assert len(list((tmp_path / "artifacts").glob("fit-*"))) == 4


@pytest.mark.slow
def test_a_run_records_the_epochs(tmp_path: Path) -> None:
    one = "{name: convnet13, width: 2, epochs: 2, sup_epochs: 1, k: 5, semi: true, label: SEMI}"
    words = [f"storage={tmp_path}", "axes.dataset=[{name: digits, limit: 100}]", f"axes.learner=[{one}]"]
    words += ["axes.strategy=[random, jlp]", "exclude=[]"]
    file = str(SWEEPS / "rethinking_mnist.yaml")
    done = ray_al(tmp_path, "run", file, "--smoke", "--no-dashboard", *[w for word in words for w in ("--set", word)])
    assert done.returncode == 0, done.stdout + done.stderr
    epochs = load_epochs(tmp_path / "rethinking-mnist-smoke")
    rounds = epochs.groupby(["strategy", "round"]).stage.apply(list).to_dict()
    fitted = [rounds.pop(("random", 0), None), rounds.pop(("jlp", 0), None)]
    assert rounds == {("random", 1): ["sup", "semi", "semi"], ("jlp", 1): ["sup", "semi", "semi"]}
    assert sorted(map(str, fitted)) == ["None", "['sup', 'semi', 'semi']"]  # one of the two fitted for both
    semi = epochs[epochs.stage == "semi"]
    assert semi.pseudo_accuracy.between(0, 1).all()
    assert (semi.graph_seconds > 0).all()
    folders = (tmp_path / "rethinking-mnist-smoke" / "tensorboard").rglob("epochs-of-round1/events*")
    assert len(list(folders)) == 2
