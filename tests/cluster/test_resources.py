"""How machines are shared out among scorers and trials."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_al.cluster.placement import room_beside, spread
from ray_al.cluster.resources import demand, this_machine
from ray_al.config import parse_sweep
from ray_al.sweep_file import ConfigError, ResourcesSection

SERVED, OWN = "logreg", "svc"


def _todo(learner: str, seeds: int = 1, strategy: str = "random") -> Any:
    axes = {"dataset": ["digits"], "learner": [learner], "strategy": [strategy], "seed": seeds}
    return parse_sweep({"name": "t", "axes": axes}).trajectories


def _section(**values: Any) -> ResourcesSection:
    return ResourcesSection.model_validate(values)


@pytest.mark.parametrize(
    ("learner", "section", "cpus", "scorer", "slots"),
    [
        (SERVED, {}, [2], 1, 4),
        (SERVED, {}, [16], 8, 32),
        (SERVED, {}, [1], 0, 4),
        (SERVED, {}, [16, 16, 16], 8, 160),  # no scorer is larger than half a machine
        (SERVED, {"scorers": 3}, [16, 16, 16], 8, 96),
        (SERVED, {"scorers": 4}, [2], 0, 8),
        (SERVED, {"trial": {"cpus": 2}}, [2], 0, 1),  # the trial needs every core: the scorer reserves none
        (OWN, {}, [2], 0, 2),
        (OWN, {"trial": {"cpus": 4}}, [16, 16], 0, 8),
        (SERVED, {"scorers": 2, "trial": {"cpus": 8}}, [8, 8], 0, 2),  # else no machine would have room for a trial
        (SERVED, {"scorers": 1, "trial": {"cpus": 8}}, [8, 8], 4, 1),  # on one of them only
        (SERVED, {"scorers": 3}, [16, 1, 1], 3, 36),  # all on the one machine that has so many
    ],
)
def test_shares(learner: str, section: dict[str, Any], cpus: list[float], scorer: float, slots: int) -> None:
    nodes = [{"CPU": float(n), "GPU": 0.0} for n in cpus]
    want = demand(_section(**section), _todo(learner), nodes)
    assert (want.scorer_cpus, want.slots) == (scorer, slots)
    assert max(want.scorer_cpus, *want.of(_todo(learner)).values()) <= max(cpus)


@pytest.mark.parametrize(
    ("section", "cpus", "seeds", "slots", "shares"),
    [
        ({}, 2, 60, 1, [60]),
        ({}, 2, 500, 1, [64, 64, 64]),  # more would be too much to lose at once
        ({}, 4, 60, 2, [16, 16, 16, 12]),
        ({}, 4, 100, 2, [25, 19, 16, 16, 16, 8]),
        ({}, 4, 10, 2, [5, 5]),
        ({}, 32, 10, 16, [1] * 10),  # a process each where there is room
        ({"trial": {"together": 2}}, 4, 5, 2, [2, 2, 1]),
        ({"trial": {"together": 1}}, 2, 3, 4, [1, 1, 1]),
        ({"trial": {"together": 50, "cpus": 1}}, 2, 50, 1, [50]),
    ],
)
def test_light_trajectories_share_trials(
    section: dict[str, Any], cpus: float, seeds: int, slots: int, shares: list[int]
) -> None:
    todo = _todo(SERVED, seeds)
    want, left, found = demand(_section(**section), todo, [{"CPU": float(cpus)}]), len(todo), []
    while left and len(found) < len(shares):
        found.append(want.share(left))
        left -= found[-1]
    assert (want.slots, found) == (slots, shares)
    assert seeds == 500 or left == 0
    assert want.share(0) == 0


def test_a_trajectory_that_shares_no_trial_takes_nothing_from_the_others() -> None:
    light, own = _todo(SERVED, 100), _todo(SERVED, strategy="tests.cluster.nearest:Nearest")
    machine = [{"CPU": 16.0}]
    plain, mixed = demand(_section(), light, machine), demand(_section(), [*light, *own], machine)
    assert (plain.slots, mixed.slots) == (8, 32)
    assert plain.share(100) == mixed.share(100) == 13


def test_trajectories_on_shares_of_gpus_and_own_methods_have_a_process_each() -> None:
    assert demand(_section(trial={"gpus": 0.5}), _todo(SERVED, 9), [{"CPU": 4.0, "GPU": 1.0}]).share(9) == 1
    assert all(t.light for t in _todo(SERVED))
    own = "tests.cluster.nearest:Nearest"
    for heavy in (_todo(OWN), _todo(SERVED, strategy=own), _todo("tests.cluster.centroids:Centroids")):
        assert not any(t.light for t in heavy)
    assert all(t.light for t in _todo(SERVED, strategy="tests.cluster.nearest:LightNearest"))


def test_gpus_bound_the_trials() -> None:
    nodes = [{"CPU": 16.0, "GPU": 1.0}, {"CPU": 16.0}]
    assert demand(_section(trial={"gpus": 0.25}), _todo(OWN), nodes).slots == 4


def test_what_no_machine_has_is_refused() -> None:
    nodes = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 4.0, "GPU": 1.0}]
    with pytest.raises(ConfigError) as caught:
        demand(_section(trial={"gpus": 2, "cpus": 6}), _todo(OWN), nodes)
    assert len(caught.value.faults) == 2


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert this_machine(5) == {"CPU": 5.0, "GPU": 2.0}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert this_machine(5)["GPU"] == 0.0


def test_scorers_that_leave_no_room_are_refused() -> None:
    nodes = [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}]
    for section, fault in (
        ({"scorers": 3, "scorer": {"gpus": 1}}, "room for 2"),
        ({"scorers": 2, "scorer": {"gpus": 1}, "trial": {"gpus": 0.5}}, "no machine has room for a trial of"),
        ({"scorers": 2, "scorer": {"cpus": 8}, "trial": {"cpus": 1}}, "no machine has room for a trial of 1 CPUs"),
    ):
        with pytest.raises(ConfigError, match=fault):
            demand(_section(**section), _todo(SERVED), nodes)


def test_scorers_go_one_to_a_machine_and_one_to_a_gpu() -> None:
    nodes = {"a": {"CPU": 4.0}, "b": {"CPU": 16.0, "GPU": 2.0}, "c": {"CPU": 16.0}}
    assert [p.node for p in spread(nodes, 3, 2)] == ["c", "a", "b"]  # machines with GPUs last: those are the trials'
    assert [p.node for p in spread(nodes, 4, 6)] == ["c", "b", "c", "b"]  # a is too small
    assert [p.node for p in spread(nodes, 3, 2, gpus=1)] == ["b", "b", None]
    assert spread({}, 1, 0)[0].node is None


_node = st.fixed_dictionaries({"CPU": st.integers(0, 32).map(float), "GPU": st.integers(0, 4).map(float)})
_nodes = st.lists(_node, min_size=1, max_size=8)


@given(_nodes, st.integers(1, 9), st.integers(0, 8), st.sampled_from([0.0, 0.5, 1.0]))
def test_places_hold_what_they_promise(nodes: list[dict[str, float]], scorers: int, cpus: int, gpus: float) -> None:
    """No machine is overbooked, none idles while another holds two more, and nothing waits that would fit."""
    named = {str(i): node for i, node in enumerate(nodes)}
    places = spread(named, scorers, float(cpus), gpus)
    held = {name: sum(place.node == name for place in places) for name in named}
    by_cpus = {name: int(node["CPU"] // cpus) if cpus else scorers for name, node in named.items()}
    by_gpus = {name: int(node["GPU"] // gpus) if gpus else scorers for name, node in named.items()}
    most = {name: min(scorers, by_cpus[name], by_gpus[name]) for name in named}
    assert all(held[name] <= most[name] for name in named)
    assert sum(held.values()) == min(scorers, sum(most.values()))
    assert all(held[a] <= held[b] + 1 for a in named for b in named if held[b] < most[b])
    assert room_beside(named, places, 0.0, 0.0)


@given(_nodes, st.integers(1, 6), st.sampled_from([None, 0.25, 1.0, 2.0, 8.0]))
def test_no_trial_and_no_scorer_waits_forever(nodes: list[dict[str, float]], scorers: int, cpus: float | None) -> None:
    section = _section(scorers=scorers, trial={} if cpus is None else {"cpus": cpus})
    todo = _todo_served()
    try:
        want = demand(section, todo, nodes)
    except ConfigError:
        assert max(node["CPU"] for node in nodes) < (cpus or 0.25)
        return
    named = {str(i): node for i, node in enumerate(nodes)}
    places = spread(named, scorers, want.scorer_cpus)
    assert all(place.node for place in places)
    assert room_beside(named, places, want.of(todo)["CPU"], 0.0)


@functools.cache
def _todo_served() -> Any:
    return _todo(SERVED)
