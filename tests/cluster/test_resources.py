"""How machines are shared out among scorers and trials."""

from __future__ import annotations

from typing import Any

import pytest

from ray_al.cluster.resources import demand, this_machine
from ray_al.config import parse_sweep
from ray_al.sweep_file import ConfigError, ResourcesSection

SERVED, OWN = "logreg", "svc"


def _todo(learner: str) -> Any:
    axes = {"dataset": ["digits"], "learner": [learner], "strategy": ["random"], "seed": 1}
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
    ],
)
def test_shares(learner: str, section: dict[str, Any], cpus: list[float], scorer: float, slots: int) -> None:
    nodes = [{"CPU": float(n), "GPU": 0.0} for n in cpus]
    want = demand(_section(**section), _todo(learner), nodes)
    assert (want.scorer_cpus, want.slots) == (scorer, slots)
    assert max(want.scorer_cpus, *want.of(_todo(learner)[0]).values()) <= max(cpus)


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
