"""The loop on a real cluster: one-shot draws, shared first fits and pseudo-labels, with a trial killed on the way."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from rich.console import Console

from ray_al import load_results
from ray_al.config import load_sweep
from ray_al.planning import plan_tables, status_tables
from ray_al.results.report import write_report
from ray_al.storage import Storage
from ray_al.verify import verify_sweep
from tests.cluster.kills import Sweep, run_and_kill

pytestmark = pytest.mark.slow

RAW = {
    "name": "loop",
    "axes": {
        "dataset": [{"name": "digits", "limit": 300}],
        "learner": [{"name": "tests.cluster.centroids:Centroids", "label": "shared"}, "svc"],
        "strategy": [
            "random",
            {"name": "ceal", "threshold": 0.3, "label": "ceal"},
            {"name": "kmeans_partition", "clusters": 5, "space": "pixels", "label": "geometric"},
        ],
        "seed": 2,
    },
    "protocol": [{"initial": 10, "batch": 10, "rounds": 3}, {"budgets": [15, 30, 45], "label": "draws"}],
    "exclude": [
        {"learner": "svc", "protocol": "10+2x10"},
        {"learner": "shared", "protocol": "draws"},
        {"strategy": "ceal", "protocol": "draws"},
    ],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    folder = tmp_path_factory.mktemp("loop")
    (folder / "loop.yaml").write_text(yaml.safe_dump({**RAW, "storage": str(folder / "runs")}))
    sweep = Sweep(folder / "loop.yaml", folder / "runs" / "loop")
    assert run_and_kill(sweep, {"trial": 8}) == (0, ["trial"]), (folder / "loop.log").read_text()
    return sweep


def test_every_row_is_what_a_run_alone_gives(finished: Sweep) -> None:
    """Verification shares no fits and runs in one process without an interruption."""
    assert verify_sweep(str(finished.folder), 100, 0, Console(quiet=True)) == []


def test_one_row_per_draw(finished: Sweep) -> None:
    frame = load_results(finished.folder)
    draws = frame[frame.protocol == "draws"]
    assert len(draws) == 2 * 2 * 3
    for _, one in draws.groupby(["strategy", "seed"]):
        assert one["round"].tolist() == [0, 1, 2]
        assert one.labels.tolist() == one.n_labeled.tolist() == one.asked_ids.map(len).tolist() == [15, 30, 45]
    log = finished.file.with_suffix(".log").read_text()
    assert "10 of 10 trajectories done" in log


def test_fits_are_saved_and_counted(finished: Sweep) -> None:
    frame = load_results(finished.folder)
    shared = frame[frame.fit_shared.fillna(False).astype(bool)]
    assert set(shared["round"]) == {0}
    assert set(shared.learner) == {"shared"}
    assert 4 <= len(shared) <= 6  # two of three strategies of two seeds; a killed trial may find its own fit again
    assert len(list((finished.folder.parent / "artifacts").glob("fit-*"))) == 2
    said = f"fits saved: {len(shared)} (first fits that another trajectory had done)"
    assert said in finished.file.with_suffix(".log").read_text()
    assert said in list(status_tables(Storage.open(finished.folder)))
    page = write_report(frame, "loop")
    assert f"<dt>fits saved</dt><dd>{len(shared)}<" in page
    paid = sum(
        rows.labels.sum() if protocol == "draws" else rows.labels.max()
        for (_, protocol), rows in frame.groupby(["trajectory_id", "protocol"])
    )
    assert f"<dt>labels paid</dt><dd>{paid:,}<" in page


def test_pseudo_labels_are_of_their_round_alone(finished: Sweep) -> None:
    frame = load_results(finished.folder)
    for _, one in frame[frame.strategy == "ceal"].groupby("seed"):
        taken = np.empty(0, np.int64)
        for row in one.sort_values("round").itertuples():
            taken = np.r_[taken, row.asked_ids]
            assert not np.intersect1d(row.assumed_ids, taken).size
            assert len(row.assumed_ids) == len(row.assumed_labels) == len(np.unique(row.assumed_ids))
            assert row.labels == row.n_labeled == len(taken)
        assert len(one.assumed_ids.iloc[0]) == 0
        assert one.assumed_ids.map(len).iloc[1:].min() > 0
    assert frame[frame.strategy != "ceal"].assumed_ids.map(len).max() == 0


def test_all_is_done_and_nothing_is_left_to_run(finished: Sweep) -> None:
    *_, last = plan_tables(load_sweep(finished.file))
    assert last == "loop: 10 trajectories: 10 done"
