"""The event files, read back with tensorboardX's own protocol buffers and checksum."""

from __future__ import annotations

import dataclasses
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ray_al.core.round import RoundRecord
from ray_al.results.tensorboard import SCALARS, EventWriter


def record(index: int, labels: int, accuracy: float = 0.5) -> RoundRecord:
    none = np.empty(0, np.int64)
    return RoundRecord(
        index, labels, labels, 0, accuracy, 0.4, 0.3, float("nan"), 0.1, none, none.astype(float), none, seconds_fit=1.5
    )


def read_events(folder: Path) -> list:
    """All events of the folder's files; fails on a wrong length or checksum."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    events = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (n,) = struct.unpack("<Q", data[:8])
            body = data[12 : 12 + n]
            assert struct.unpack("<I", data[8:12])[0] == masked_crc32c(data[:8])
            assert struct.unpack("<I", data[12 + n : 16 + n])[0] == masked_crc32c(body)
            event = Event.FromString(body)
            assert event.SerializeToString() == body  # no unknown and no misplaced fields
            events.append(event)
            data = data[16 + n :]
    return events


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for event in read_events(folder):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_events_hold_every_scalar_with_labels_as_the_step(tmp_path):
    records = [record(0, 10, 0.25), record(1, 20, 0.5), record(2, 1_000_000, 0.75)]
    with EventWriter(tmp_path / "a" / "b") as writer:
        for each in records:
            writer.add(each)
    found = scalars(tmp_path / "a" / "b")
    assert list(found) == list(SCALARS)
    for tag, field in SCALARS.items():
        expected = [(each.labels, np.float32(getattr(each, field))) for each in records]
        assert np.array_equal(found[tag], expected, equal_nan=True)
    assert read_events(tmp_path / "a" / "b")[0].file_version == "brain.Event:2"


def test_a_resumed_trajectory_shows_each_round_once(tmp_path):
    records = [record(i, 10 * (i + 1)) for i in range(4)]
    first = EventWriter(tmp_path)
    first.add(records[0])
    first.add(records[1])  # killed here: never closed
    with EventWriter(tmp_path, records[:1]) as second:  # the last round did not reach the ledger
        for each in records[1:]:
            second.add(each)
    assert [step for step, _ in scalars(tmp_path)["accuracy"]] == [10, 20, 30, 40]
    assert len(list(tmp_path.iterdir())) == 1
    assert read_events(tmp_path)[1].session_log.status == 1  # START: a running TensorBoard drops what it has read


def test_points_can_be_read_while_the_file_is_open(tmp_path):
    writer = EventWriter(tmp_path)
    writer.add(record(0, 10))
    assert scalars(tmp_path)["accuracy"] == [(10, 0.5)]
    writer.close()
    writer.close()


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    EventWriter(tmp_path).close()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        EventWriter(tmp_path / "file" / "events")


def test_every_scalar_names_a_field():
    assert set(SCALARS.values()) <= {field.name for field in dataclasses.fields(RoundRecord)}


def test_the_writer_imports_neither_torch_nor_pandas():
    code = "import sys, ray_al.results.tensorboard; print({'torch', 'pandas', 'tensorboardX'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
