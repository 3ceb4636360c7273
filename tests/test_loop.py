"""The loop without a cluster, from a sweep file through the ledger: what is resumed equals what was never cut."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_al.assemble import LocalReader, circumstances, materialize, run_locally
from ray_al.config import Sweep, parse_sweep
from ray_al.core.labeled_set import LabeledSet
from ray_al.core.pool import Pool
from ray_al.core.query import PoolQuery, PseudoLabels, Selection
from ray_al.core.round import Round, RoundRecord
from ray_al.data.artifacts import ArtifactStore
from ray_al.experiment import TrajectoryConfig
from ray_al.kernels import kmeans
from ray_al.learners.logreg import LinearModel, LogReg
from ray_al.results.ledger import Ledger
from ray_al.results.load import load_results
from ray_al.results.statistics import aulc, labels_to_accuracy, learning_curves
from ray_al.services.pool_scorer import PoolScorer
from ray_al.storage import Storage
from ray_al.verify import differences


@dataclasses.dataclass(frozen=True)
class Assuming:
    """Asks at random and assumes the twenty surest of the rest, most sure first, as int32."""

    needs = frozenset({"probs"})

    def select(self, round: Round) -> Selection:
        assert round.model is not None
        order = round.rng.permutation(round.unlabeled)
        rest = np.sort(order[round.batch :])
        probs = round.model.output("probs", rest)
        sure = np.argsort(-probs.max(1), kind="stable")[:20]
        assumed = PseudoLabels(rest[sure].astype(np.int32), probs[sure].argmax(1).astype(np.int32))
        return Selection((PoolQuery(order[: round.batch]),), assumed)


class Unsure(LogReg):
    """Its models' outputs are not their heads'."""

    injected = frozenset({"service"})

    def fit(self, labeled: LabeledSet, assume: PseudoLabels, pool: Pool, rng: np.random.Generator) -> LinearModel:
        model = super().fit(labeled, assume, pool, rng)
        return Flat(model.linear, model.service, model.pool, model.metrics)


class Flat(LinearModel):
    def output(self, head: str, ids: np.ndarray | None = None, split: str = "pool") -> np.ndarray:
        found = super().output(head, ids, split)
        return np.full_like(found, 0.1) if head == "probs" else found


def sweep(tmp_path: Path, **changes: Any) -> Sweep:
    axes = {"dataset": [{"name": "digits", "limit": 300}], "learner": ["logreg"], "strategy": ["random"], "seed": 1}
    raw = {"name": "loop", "storage": str(tmp_path), "protocol": {"initial": 10, "batch": 10, "rounds": 4}}
    return parse_sweep({**raw, **changes, "axes": {**axes, **changes.get("axes", {})}})


def through_the_ledger(
    found: Sweep, config: TrajectoryConfig, folder: Path, cut: int | None, **options: Any
) -> list[RoundRecord]:
    """Run to the end; with `cut`, stop after so many rounds and go on from what a new process finds on the ledger."""
    storage = Storage.open(folder)
    ledger = Ledger(storage.child("loop"), config.name)
    for record in run_locally(found, config, storage, **options):
        ledger.append(record, {**circumstances(), "peak_mb": 1.0})
        if record.round + 1 == cut:
            break
    again = Ledger(storage.child("loop"), config.name)
    done, state = again.load()
    for record in run_locally(found, config, storage, done, state, **options):
        again.append(record, {**circumstances(), "peak_mb": 1.0})
    records, _ = Ledger(storage.child("loop"), config.name).load()
    again.finish()
    return records


@pytest.mark.parametrize("learner", ["logreg", "logreg_committee", "tests.test_loop:Unsure"])
def test_metrics_are_those_of_what_the_model_returns(
    tmp_path: Path, learner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = sweep(tmp_path, axes={"learner": [learner]})
    measured = list(run_locally(found, found.trajectories[0], Storage.open(tmp_path / "measured")))
    monkeypatch.setattr(PoolScorer, "linear_metrics", lambda self, head: None)  # then from the model's output
    plain = list(run_locally(found, found.trajectories[0], Storage.open(tmp_path / "plain")))
    assert differences(measured, plain) == []
    assert (measured[0].nll == pytest.approx(np.log(10))) == (learner == "tests.test_loop:Unsure")


@pytest.mark.parametrize("cut", [1, 2, 3])
@pytest.mark.parametrize("learner", ["logreg", {"name": "svc", "grid": False}])
def test_pseudo_labels_survive_a_cut(tmp_path: Path, learner: Any, cut: int) -> None:
    found = sweep(tmp_path, axes={"learner": [learner], "strategy": ["tests.test_loop:Assuming"]})
    (config,) = found.trajectories
    whole = list(run_locally(found, config, Storage.open(tmp_path / "whole")))
    assert [len(r.assumed_ids) for r in whole] == [0, 20, 20, 20]
    assert all(r.assumed_ids.dtype == r.assumed_labels.dtype == np.int64 for r in whole)
    asked = np.empty(0, np.int64)
    for record in whole:
        asked = np.r_[asked, record.asked_ids]
        assert not np.intersect1d(asked, record.assumed_ids).size
        assert record.n_labeled == record.labels == len(asked) == record.class_counts.sum()
    assert differences(through_the_ledger(found, config, tmp_path / "cut", cut), whole) == []


def test_pseudo_labels_count_in_their_own_fit_alone(tmp_path: Path) -> None:
    """The fit of a round sees those of the selection before it: without them the same labels give another model."""
    found = sweep(tmp_path, axes={"strategy": ["tests.test_loop:Assuming", "random"]})
    with_them, without = (list(run_locally(found, t, Storage.open(tmp_path))) for t in found.trajectories)
    assert with_them[0].nll == without[0].nll
    assert np.array_equal(with_them[1].asked_ids, without[1].asked_ids), "the same stream draws the same items"
    assert with_them[1].nll != without[1].nll


@pytest.mark.parametrize("cut", [1, 2])
def test_one_shot_draws_through_the_ledger(tmp_path: Path, cut: int) -> None:
    geometric = {"name": "kmeans_partition", "clusters": 5}
    axes = {"learner": ["svc"], "strategy": ["random", geometric, "kcenter_greedy"], "seed": 2}
    found = sweep(tmp_path, axes=axes, protocol={"budgets": [15, 30, 60]})
    for config in found.trajectories:
        whole = list(run_locally(found, config, Storage.open(tmp_path / "whole")))
        assert [r.labels for r in whole] == [15, 30, 60]
        assert not np.isin(whole[0].asked_ids, whole[1].asked_ids).all()
        assert differences(through_the_ledger(found, config, tmp_path / "cut", cut), whole) == []
    frame = load_results(tmp_path / "cut" / "loop")
    curves = learning_curves(frame)
    assert sorted(set(curves.labels)) == [15, 30, 60]
    assert (curves.groupby("strategy").n.max() == 2).all()
    areas = aulc(frame)
    first = frame[frame.trajectory_id == areas.trajectory_id[0]].sort_values("round").accuracy.to_numpy()
    expected = ((first[0] + first[1]) / 2 * 15 + (first[1] + first[2]) / 2 * 30) / 45
    assert len(areas) == 6
    assert areas.aulc[0] == pytest.approx(expected)
    assert set(labels_to_accuracy(frame, [0.1]).labels) == {15}


def test_draws_of_a_seed_share_their_clustering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    real = kmeans.kmeans

    def counted(rows: np.ndarray, clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
        calls.append((clusters, seed))
        return real(rows, clusters, seed)

    monkeypatch.setattr(kmeans, "kmeans", counted)
    by_budget = {"name": "kmeans_partition", "label": "one each"}
    five = {"name": "kmeans_partition", "clusters": 5}
    axes = {"learner": [{"name": "svc", "grid": False}], "strategy": [five, by_budget], "seed": 1}
    found = sweep(tmp_path, axes=axes, protocol={"budgets": [15, 30, 60]})
    (shared, single) = found.trajectories
    records = list(run_locally(found, shared, Storage.open(tmp_path)))
    assert [clusters for clusters, _ in calls] == [5]
    clusters = real(_reader(found, shared, tmp_path).read("pixels", "pool"), *calls[0])[0]
    for record in records:
        counts = np.bincount(clusters[record.asked_ids], minlength=5)
        assert counts.sum() == record.labels
        if np.bincount(clusters).min() >= record.labels // 5:
            assert (counts == record.labels // 5).all()
    calls.clear()
    list(run_locally(found, single, Storage.open(tmp_path)))
    assert [clusters for clusters, _ in calls] == [15, 30, 60]


def _reader(found: Sweep, config: TrajectoryConfig, folder: Path) -> LocalReader:
    store = ArtifactStore(Storage.open(folder))
    return LocalReader(store, materialize(found, store, [config])[0])


def test_strategies_of_a_seed_share_their_first_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray_al.learners import networks

    monkeypatch.setattr(networks, "FEWEST_STEPS", 12)
    learner = {"name": "cnn", "epochs": 1, "width": 4, "device": "cpu"}
    strategies = ["random", "margin"]
    found = sweep(tmp_path, axes={"learner": [learner], "strategy": strategies}, protocol={"rounds": 2})
    shared = [list(run_locally(found, t, Storage.open(tmp_path / "a"), share_fits=True)) for t in found.trajectories]
    alone = [list(run_locally(found, t, Storage.open(tmp_path / "b"))) for t in found.trajectories]
    for one, other in zip(shared, alone, strict=True):
        assert differences(one, other) == []
    assert [[r.fit_shared for r in records] for records in shared] == [[False, False], [True, False]]
    assert not list((tmp_path / "b" / "artifacts").glob("fit-*"))
    cut = found.trajectories[1]
    resumed = through_the_ledger(found, cut, tmp_path / "a", 1, share_fits=True)
    assert differences(resumed, alone[1]) == []
    assert [r.fit_shared for r in resumed] == [True, False]


def test_a_cheap_learner_shares_nothing(tmp_path: Path) -> None:
    found = sweep(tmp_path)
    records = list(run_locally(found, found.trajectories[0], Storage.open(tmp_path), share_fits=True))
    assert not any(r.fit_shared for r in records)
    assert not list((tmp_path / "artifacts").glob("fit-*"))
