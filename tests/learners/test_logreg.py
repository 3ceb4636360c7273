"""Logistic regression as a learner: its options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from ray_al.core.linear import LinearService
from ray_al.core.metrics import classification_metrics
from ray_al.core.query import NONE
from ray_al.core.seeds import stream
from ray_al.learners.committee import LogRegCommittee
from ray_al.learners.logreg import LogReg
from ray_al.methods import resolve
from ray_al.services.device_scorer import DeviceScorer
from ray_al.services.pool_scorer import PoolScorer
from tests.fakes import ArrayReader, toy_pool

TOY = toy_pool()
SERVICES: list[Callable[[], LinearService]] = [
    lambda: PoolScorer(TOY.pool.reader),
    lambda: DeviceScorer(TOY.pool.reader, "cpu"),
]


@pytest.mark.parametrize("learner", [LogReg, LogRegCommittee])
@pytest.mark.parametrize("service", SERVICES)
def test_the_smaller_tol_the_nearer_the_minimum(
    learner: type[LogReg | LogRegCommittee], service: Callable[[], LinearService]
) -> None:
    def probs(tol: float) -> np.ndarray:
        made = learner(tol=tol, service=service())
        return made.fit(TOY.labeled, NONE, TOY.pool, stream(0, "init-weights")).output("probs")

    exact = probs(1e-9)
    errors = [float(np.abs(probs(tol) - exact).max()) for tol in (0.1, 1e-3, 1e-5)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-2
    assert errors[2] < 1e-4
    assert learner().tol == 1e-7


@pytest.mark.parametrize("name", ["logreg", "logreg_committee"])
@pytest.mark.parametrize("tol", [0.0, -1e-3, 1e-12, 1.0, float("nan")])
def test_a_tol_that_no_fit_can_have_is_refused(name: str, tol: float) -> None:
    assert resolve("learner", name, {"tol": tol})[1] == [f"{name} needs a tol of 1e-9 to 0.1, not {tol}"]


@dataclass(frozen=True)
class LabeledReader(ArrayReader):
    """Knows the labels, as those of datasets do."""

    test_labels: np.ndarray

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        return TOY.labels, self.test_labels


@pytest.mark.parametrize("learner", [LogReg, LogRegCommittee])
@pytest.mark.parametrize("scorer", [PoolScorer, lambda reader: DeviceScorer(reader, "cpu")])
def test_a_service_with_labels_measures_heads_as_their_probabilities_are(
    learner: type[LogReg | LogRegCommittee], scorer: Callable[[Any], Any]
) -> None:
    service = scorer(LabeledReader(TOY.pool.reader.arrays, TOY.test_labels))
    model = learner(service=service).fit(TOY.labeled, NONE, TOY.pool, stream(0, "init-weights"))
    expected = classification_metrics(model.output("probs", split="test"), TOY.test_labels)
    assert service.linear_metrics(model.linear) == expected
    if learner is LogReg:
        assert model.metrics == expected
        plain = scorer(TOY.pool.reader)
        assert plain.linear_metrics(model.linear) is None
        unmeasured = LogReg(service=plain).fit(TOY.labeled, NONE, TOY.pool, stream(0, "init-weights"))
        assert unmeasured.metrics is None
