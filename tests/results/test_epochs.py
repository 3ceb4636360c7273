"""Epochs of learners on record: Parquet beside the ledger, and scalars that TensorBoard reads."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ray_al import load_epochs
from ray_al.results.epochs import write_epochs
from ray_al.results.schema import TrajectoryName
from ray_al.results.tensorboard import write_scalars
from ray_al.storage import Storage
from tests.results.test_event_writer import scalars

ROWS = [
    {"stage": "sup", "epoch": 0, "loss": 2.5},
    {"stage": "semi", "epoch": 0, "loss": 1.25, "weights_mean": 0.5, "pseudo_accuracy": None},
]


def name(trajectory: str) -> TrajectoryName:
    return TrajectoryName(trajectory, "s", "digits", "SEMI", "random", "10+4x10", 3)


def test_epochs_come_back_with_the_columns_of_all(tmp_path: Path) -> None:
    storage = Storage.open(tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a sweep's folder"):
        load_epochs(tmp_path)
    storage.write("sweep.json", b"{}")
    assert load_epochs(tmp_path).empty
    write_epochs(storage, name("b"), 1, ROWS)
    write_epochs(storage, name("a"), 0, ROWS[:1])
    write_epochs(storage, name("b"), 0, ROWS[:1])
    write_epochs(storage, name("b"), 1, ROWS)  # a round that ran again replaces its file
    frame = load_epochs(tmp_path)
    assert frame.trajectory_id.tolist() == ["a", "b", "b", "b"]
    assert frame["round"].tolist() == [0, 0, 1, 1]
    assert frame.loss.tolist() == [2.5, 2.5, 2.5, 1.25]
    assert math.isnan(frame.weights_mean[0])
    assert frame.weights_mean[3] == 0.5
    assert set(frame.learner) == {"SEMI"}
    assert set(frame.seed) == {3}


def test_scalars_of_epochs_are_the_numbers_of_each_row(tmp_path: Path) -> None:
    write_scalars(Storage.open(tmp_path), ROWS)
    events = scalars(tmp_path)
    assert events == {
        "epoch": [(0, 0.0), (1, 0.0)], "loss": [(0, 2.5), (1, 1.25)], "weights_mean": [(1, 0.5)],
    }  # fmt: skip
