"""Sweep files: what they may say, what they expand to, and every way to get one wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_al.config import Sweep, load_sweep, parse_sweep
from ray_al.experiment import TrajectoryConfig
from ray_al.sweep_file import ConfigError

BASE: dict[str, Any] = {
    "name": "t",
    "axes": {"dataset": ["digits"], "learner": ["logreg"], "strategy": ["random", "entropy"], "seed": 2},
    "protocol": {"initial": 10, "batch": 5, "rounds": 3},
}


def _with(**changes: Any) -> dict[str, Any]:
    axes = {**BASE["axes"], **changes.pop("axes", {})}
    return {**BASE, "axes": axes, **changes}


def _faults(raw: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_sweep(raw)
    return caught.value.faults


def _write(folder: Path, text: str) -> Path:
    path = folder / "x.yaml"
    path.write_text(text)
    return path


def _cells(sweep: Sweep) -> list[tuple[str, str, int]]:
    return [(t.name.strategy, t.name.protocol, t.seed) for t in sweep.trajectories]


def test_the_grid_is_the_product_of_the_axes() -> None:
    sweep = parse_sweep(BASE)
    assert _cells(sweep) == [(s, "10+2x5", seed) for s in ("random", "entropy") for seed in (0, 1)]
    assert len({t.id for t in sweep.trajectories}) == 4
    assert [t.spaces for t in sweep.trajectories] == [("pixels",)] * 4


def test_ids_are_of_the_experiment_alone() -> None:
    ids = [t.id for t in parse_sweep(BASE).trajectories]
    renamed = _with(name="other", storage="elsewhere", resources={"trial": {"cpus": 2}, "retries": 0})
    assert [t.id for t in parse_sweep(renamed).trajectories] == ids
    labeled = _with(axes={"strategy": [{"name": "random", "label": "uniform"}, "entropy"]})
    assert [t.id for t in parse_sweep(labeled).trajectories] == ids
    spelled = _with(axes={"learner": [{"name": "logreg", "l2": 1.0}]})
    assert [t.id for t in parse_sweep(spelled).trajectories] == ids
    for changed in (
        _with(axes={"learner": [{"name": "logreg", "l2": 2.0}]}),
        _with(axes={"learner": [{"name": "logreg", "space": "pca10"}]}),
        _with(axes={"dataset": [{"name": "digits", "limit": 500}]}),
        _with(protocol={"initial": 10, "batch": 5, "rounds": 4}),
    ):
        assert not set(ids) & {t.id for t in parse_sweep(changed).trajectories}


def test_pinned_identity() -> None:
    """Ids written today must be found again: a change here orphans everybody's results, so make it on purpose."""
    import json

    sweep = parse_sweep(BASE)
    again = parse_sweep(json.loads(json.dumps(sweep.raw)))
    assert [t.id for t in again.trajectories] == [t.id for t in sweep.trajectories]
    assert sweep.trajectories[0].id == "0b769855e8bd0409"


def test_trajectories_travel_as_json() -> None:
    for config in parse_sweep(
        _with(axes={"strategy": ["random", {"name": "typiclust", "space": "pca5"}]})
    ).trajectories:
        assert TrajectoryConfig.from_json(config.to_json()) == config


def test_exclude_and_zip() -> None:
    raw = _with(exclude=[{"strategy": "entropy", "seed": [1]}])
    assert ("entropy", "10+2x5", 1) not in _cells(parse_sweep(raw))
    assert len(parse_sweep(raw).trajectories) == 3
    protocols = [{"initial": 10, "batch": 5, "rounds": 3}, {"initial": 20, "batch": 10, "rounds": 2}]
    zipped = _cells(parse_sweep(_with(protocol=protocols, zip=[["strategy", "protocol"]], axes={"seed": 1})))
    assert zipped == [("random", "10+2x5", 0), ("entropy", "20+1x10", 0)]


def test_equal_experiments_are_told_apart_from_different_ones() -> None:
    ids = [t.id for t in parse_sweep(BASE).trajectories]
    for same in (
        _with(axes={"learner": [{"name": "logreg", "l2": 1, "space": "pixels"}]}),
        _with(spaces={"mine": {"name": "pca", "of": "pixels", "dims": 3}}),
    ):
        assert [t.id for t in parse_sweep(same).trajectories] == ids
    by_name = [
        parse_sweep(_with(axes={"learner": [{"name": "logreg", "space": name, "label": "x"}]}, spaces=spaces))
        .trajectories[0]
        .id
        for name, spaces in (("pca9", {}), ("mine", {"mine": {"name": "pca", "of": "pixels", "dims": 9}}))
    ]
    assert by_name[0] == by_name[1]
    two = _with(axes={"strategy": ["badge", {"name": "badge", "first": "norm", "label": "b"}]})
    assert any("are the same experiment; remove one" in fault for fault in _faults(two))
    twins = _with(axes={"dataset": ["digits", {"name": "digits", "label": "again"}]})
    assert any("'digits' and 'again' hold the same data" in fault for fault in _faults(twins))


def test_a_strategy_changes_nothing_of_what_the_learner_reads() -> None:
    """A learner without a `space` option reads the default space, whatever space the strategy measures in."""
    raw = _with(
        axes={
            "learner": ["tests.test_config:NoSpace"],
            "strategy": ["random", {"name": "kcenter_greedy", "space": "pca8"}],
            "seed": 1,
        }
    )
    assert [t.spaces for t in parse_sweep(raw).trajectories] == [("pixels",), ("pixels", "pca8")]
    lean = _with(axes={"learner": [{"name": "logreg", "space": "pca8"}], "strategy": ["kcenter_greedy"], "seed": 1})
    assert parse_sweep(lean).trajectories[0].spaces == ("pca8",)


class NoSpace:
    """A learner that offers probabilities only."""

    def fit(self) -> None: ...


def test_checks_are_of_the_cells_that_run() -> None:
    """What exclude and zip keep apart is not checked together."""
    cold = [{"initial": 10, "batch": 5, "rounds": 3}, {"initial": 0, "batch": 5, "rounds": 2, "label": "cold"}]
    raw = _with(protocol=cold, exclude=[{"strategy": "entropy", "protocol": "cold"}])
    assert len(parse_sweep(raw).trajectories) == 6
    sizes = [{"name": "digits", "limit": 100}, "digits"]
    budgets = [{"initial": 10, "batch": 5, "rounds": 3}, {"initial": 10, "batch": 500, "rounds": 2}]
    assert (
        len(parse_sweep(_with(axes={"dataset": sizes}, protocol=budgets, zip=[["dataset", "protocol"]])).trajectories)
        == 8
    )


def test_full_runs_once_whatever_the_protocols() -> None:
    protocols = [{"initial": 10, "batch": 5, "rounds": 3}, {"initial": 20, "batch": 10, "rounds": 2}]
    sweep = parse_sweep(_with(protocol=protocols, axes={"strategy": ["full"], "seed": 1}))
    assert _cells(sweep) == [("full", "all", 0)]


def test_smoke_and_set(tmp_path: Path) -> None:
    raw = _with(smoke={"axes": {"seed": 1}, "protocol": {"rounds": 2}})
    path = _write(tmp_path, yaml.safe_dump(raw))
    assert len(load_sweep(path).trajectories) == 4
    smoke = load_sweep(path, smoke=True)
    assert smoke.name == "t-smoke"
    assert _cells(smoke) == [("random", "10+1x5", 0), ("entropy", "10+1x5", 0)]
    changed = load_sweep(path, ["axes.seed=[7]", "protocol.batch=3", "axes.strategy=[margin]"])
    assert _cells(changed) == [("margin", "10+2x3", 7)]


def test_numbers_in_scientific_notation(tmp_path: Path) -> None:
    raw = yaml.safe_dump(_with()).replace("- logreg", "- {name: logreg, l2: 1e-3}")
    assert load_sweep(_write(tmp_path, raw)).trajectories[0].learner.values["l2"] == 1e-3


BAD = [
    (_with(axes={"strategy": ["entrpy"]}), "unknown strategy 'entrpy'; did you mean 'entropy'? known: badge, "),
    (_with(axes={"strategy": ["coreset"]}), "unknown strategy 'coreset'; did you mean 'kcenter_greedy'?"),
    (_with(axes={"learner": ["logregg"]}), "unknown learner 'logregg'; did you mean 'logreg'?"),
    (_with(axes={"dataset": ["digit"]}), "unknown dataset 'digit'"),
    (_with(axes={"strategy": [{"name": "badge", "frist": "norm"}]}), "option of strategy badge 'frist'; did you mean"),
    (_with(axes={"strategy": [{"name": "badge", "first": "last"}]}), "badge takes first: norm or uniform, not 'last'"),
    (_with(axes={"strategy": [{"name": "random", "x": 1}]}), "strategy random takes no option 'x'"),
    (_with(axes={"strategy": [{"label": "x"}]}), "axes.strategy: an entry needs a name"),
    (_with(axes={"strategy": []}), "axes.strategy: list should have at least 1 item"),
    (_with(axes={"strategy": ["random", "random"]}), "are the same experiment; remove one"),
    (_with(axes={"learner": [{"name": "logreg", "l2": -1.0}]}), "logreg needs 0 < l2 < 1e12, not -1.0"),
    (_with(axes={"learner": [{"name": "logreg", "l2": "big"}]}), "learner logreg: input should be a valid number"),
    (_with(axes={"learner": [{"name": "logreg", "space": "pca999"}]}), "pca999"),
    (_with(axes={"learner": [{"name": "logreg", "space": "vae"}]}), "unknown space 'vae'"),
    (_with(axes={"learner": [{"name": "logreg", "space": "images"}]}), "space 'images' does not fit, it reads vectors"),
    (_with(axes={"learner": [{"name": "cnn", "space": "pixels"}]}), "space 'pixels' does not fit, it reads images"),
    (_with(smoke={"axes": {"sed": 1}}), "smoke: axes.sed: unknown key; did you mean 'seed'?"),
    (_with(exclude=[{"strategy": {"name": "random"}}]), "matches no cell"),
    (_with(axes={"strategy": ["tests.broken_module:X"]}), "cannot load strategy 'tests.broken_module:X'"),
    (_with(axes={"seed": 0}), "axes.seed: give a number of seeds from 1 to 1000000, or a list of seeds, got 0"),
    (_with(axes={"seed": [0, -1]}), "axes.seed.1: input should be greater than or equal to 0, got -1"),
    (_with(axes={"seed": "many"}), "axes.seed"),
    (_with(axes={"sed": 1}), "axes.sed: unknown key; did you mean 'seed'?"),
    (_with(protocol={"batch": -3}), "protocol.0.batch: input should be greater than or equal to 1, got -3"),
    (_with(protocol={"batch": 10**30}), "protocol.0.batch: input should be less than or equal to 1000000000"),
    (_with(protocol={"batch": 2000, "rounds": 1}), "protocol.batch: 2,000 is more than the pool of 'digits'"),
    (_with(protocol={"batch": 100, "rounds": 100}), "asks for 9,910 labels, the pool of 'digits' has"),
    (_with(protocol={"initial": 1430, "rounds": 1}), "the smallest class of 'digits' has"),
    (_with(protocol={"initial": 0}), "strategy 'entropy' needs a model to choose"),
    (_with(name="a/b"), "name: use letters, digits"),
    (_with(name="artifacts"), "name: 'artifacts' is reserved"),
    (_with(resorces={}), "resorces: unknown key; did you mean 'resources'?"),
    (_with(resources={"trial": {"gpu": 1}}), "resources.trial.gpu: unknown key; did you mean 'gpus'?"),
    (_with(resources={"scorer": {"gpu": 1}}), "resources.scorer.gpu: unknown key; did you mean 'gpus'?"),
    (_with(exclude=[{"strategy": "margin"}]), "exclude[0] {'strategy': 'margin'} matches no cell"),
    (_with(exclude=[{"dataset": "digits"}]), "exclude leaves nothing to run"),
    (_with(exclude=[{"stratgy": "margin"}]), "exclude[0]: unknown axis 'stratgy'; known: dataset, learner, strategy"),
    (_with(axes={"seed": [0, 3, 3]}), "axes.seed: 3 is there more than once"),
    (_with(zip=[["strategy", "sede"]]), "zip: unknown axis 'sede'"),
    (_with(zip=[["strategy", "learner"]]), "equal lengths, got {'strategy': 2, 'learner': 1}"),
    (_with(axes={"strategy": ["tests.fakes:nothing"]}), "cannot load strategy 'tests.fakes:nothing'"),
    (_with(axes={"strategy": ["no_such_module:X"]}), "cannot load strategy 'no_such_module:X': No module named"),
    (_with(axes={"strategy": ["tests.fakes:toy_pool"]}), "is not a class with a method 'select'"),
    ({"name": "t"}, "axes: missing"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "message"), BAD, ids=[m[:50] for _, m in BAD])
def test_faults_say_what_and_what_else(raw: dict[str, Any], message: str) -> None:
    faults = _faults(raw)
    assert any(message in fault for fault in faults), faults


def test_all_faults_at_once() -> None:
    raw = _with(
        axes={"strategy": ["entrpy"], "learner": ["logregg"], "dataset": ["digit"], "seed": -1},
        protocol={"batch": 0},
        spaces={"x": {"name": "nope"}},
        resources={"scorers": 0},
        extra=1,
    )
    text = "\n".join(_faults(raw))
    for part in ("entrpy", "logregg", "digit", "axes.seed", "batch", "nope", "scorers", "extra"):
        assert part in text, text


@pytest.mark.parametrize("value", [3, None, ["random"]])
def test_an_entry_that_is_neither_name_nor_mapping_is_one_fault(value: Any) -> None:
    (fault,) = _faults(_with(axes={"strategy": ["random", value]}))
    assert fault == f"axes.strategy.1: give a name, or a mapping with a name and options, got {value!r}"


def test_a_learner_without_a_needed_head() -> None:
    raw = _with(axes={"strategy": ["badge"], "learner": ["tests.test_config:NoSpace"]})
    assert any("strategy 'badge' needs the head embedding" in fault for fault in _faults(raw))
    raw = _with(axes={"strategy": ["bald"], "learner": ["logreg_committee", "logreg"]})
    (fault,) = _faults(raw)
    assert "strategy 'bald' needs the head mc_probs, which learner 'logreg' does not offer" in fault


def test_yaml_faults(tmp_path: Path) -> None:
    for text, message in (
        ("name: a\nname: b\naxes: {seed: 1, seed: 2}\n", "line 2: the key 'name' is given twice"),
        ("name: a\nname: b\naxes: {seed: 1, seed: 2}\n", "line 3: the key 'seed' is given twice"),
        ("name: [a\n", "not valid YAML"),
        ("- a\n", "a sweep file is a mapping"),
        ("", "a sweep file is a mapping"),
        ("x: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ):
        with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
            load_sweep(_write(tmp_path, text))
    with pytest.raises(ConfigError, match="cannot read the sweep file"):
        load_sweep(tmp_path / "absent.yaml")
    path = _write(tmp_path, yaml.safe_dump(BASE))
    with pytest.raises(ConfigError, match=r"--set 'axes\.seed': write it as"):
        load_sweep(path, ["axes.seed"])
    with pytest.raises(ConfigError, match="has no smoke block"):
        load_sweep(path, smoke=True)


ONE_SHOT = {"budgets": [20, 40, 80]}


def test_one_shot_budgets_are_a_protocol() -> None:
    (first, *_) = parse_sweep(_with(protocol=ONE_SHOT, axes={"strategy": ["random"]})).trajectories
    assert (first.name.protocol, first.protocol.rounds, first.protocol.total_labels) == ("one-shot 20..80", 3, 80)
    assert TrajectoryConfig.from_json(first.to_json()) == first
    both = _with(protocol=[{**ONE_SHOT, "label": "draws"}, BASE["protocol"]], axes={"strategy": ["random"], "seed": 1})
    assert [t.name.protocol for t in parse_sweep(both).trajectories] == ["draws", "10+2x5"]
    (other, *_) = parse_sweep(_with(protocol={"budgets": [20, 40]}, axes={"strategy": ["random"]})).trajectories
    assert other.id != first.id


def test_one_shot_draws_measure_where_no_model_is_needed() -> None:
    """k-center without a space of its own has no embedding to measure in: it takes the default space."""
    found = parse_sweep(
        _with(protocol=ONE_SHOT, axes={"strategy": ["kcenter_greedy"], "learner": [{"name": "svc", "space": "pca5"}]})
    )
    assert found.trajectories[0].spaces == ("pca5", "pixels")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"protocol": {"budgets": [20], "rounds": 2}},
            "protocol.0: budgets are one-shot draws, a model each; leave out rounds",
        ),
        (
            {"protocol": {"budgets": [20], "initial": 0, "batch": 5}},
            "protocol.0: budgets are one-shot draws, a model each; leave out batch, initial",
        ),
        ({"protocol": {"budgets": [40, 20]}}, "protocol.0: budgets must ascend, got [40, 20]"),
        ({"protocol": {"budgets": [20, 20]}}, "protocol.0: budgets must ascend, got [20, 20]"),
        ({"protocol": {"budgets": []}}, "protocol.0.budgets: tuple should have at least 1 item"),
        ({"protocol": {"budgets": [0, 5]}}, "protocol.0.budgets.0: input should be greater than or equal to 1"),
        ({"protocol": {"budgets": ["5"]}}, "protocol.0.budgets.0: input should be a valid integer"),
        ({"protocol": ONE_SHOT}, "strategy 'entropy' needs a model to choose; one-shot draws have none"),
        (
            {"protocol": {"budgets": [20, 3000]}, "axes": {"strategy": ["random"]}},
            "protocol 'one-shot 20..3000' asks for 3,000 labels, the pool of 'digits' has",
        ),
        (
            {"protocol": ONE_SHOT, "axes": {"strategy": ["random"], "learner": ["tests.fakes:Carrying"]}},
            "learner 'tests.fakes:Carrying' carries weights from round to round; one-shot draws are independent",
        ),
        ({"share_fits": "yes"}, "share_fits: input should be a valid boolean"),
        (
            {"axes": {"strategy": ["random"], "learner": ["tests.fakes:CarryingAndShared"]}},
            "'tests.fakes:CarryingAndShared' carries weights from round to round, so its fits cannot be shared",
        ),
        (
            {"axes": {"strategy": ["random"], "learner": ["tests.fakes:SharedWithoutSave"]}},
            "'tests.fakes:SharedWithoutSave' has no methods save and load, so its fits cannot be shared",
        ),
    ],
)  # fmt: skip
def test_faults_of_one_shot_and_shared_fits(changes: dict[str, Any], message: str) -> None:
    assert any(message in fault for fault in _faults(_with(**changes))), _faults(_with(**changes))


def test_sharing_fits_is_no_part_of_identity() -> None:
    on, off = parse_sweep(BASE), parse_sweep(_with(share_fits=False))
    assert (on.share_fits, off.share_fits) == (True, False)
    assert [t.id for t in on.trajectories] == [t.id for t in off.trajectories]
