"""TensorBoard scalars of one trajectory, with the annotations paid as the step.

The events are encoded here, in some forty lines of a format that has not changed since 2016: importing tensorboardX
imports torch (over 1 s and 700 MB), which a trial must not do.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ray_al.core.round import RoundRecord
from ray_al.storage import Storage

SCALARS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced_accuracy",
    "macro_f1": "macro_f1",
    "nll": "nll",
    "ece": "ece",
    "seconds/fit": "seconds_fit",
    "seconds/select": "seconds_select",
    "seconds/eval": "seconds_eval",
}


class EventWriter:
    """Writes the rounds of one trajectory to the one event file of `folder`.

    Opening writes `records` (those already on the ledger) to a new file and deletes older ones, so a trajectory that
    was resumed shows each round once, also in a TensorBoard that is running. A point can be seen as soon as `add`
    returns; it is on disk when the operating system puts it there.

    Raises:
        OSError: the folder or the file cannot be written.
    """

    def __init__(self, folder: Path, records: Sequence[RoundRecord] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        old = list(folder.glob("events.out.tfevents.*"))
        # TensorBoard goes from file to file in the order of their names: the new one has to sort last.
        self._file = open(folder / f"events.out.tfevents.{time.time_ns():020d}.ray-al", "wb")  # noqa: SIM115
        started = _message(7, _varint(1, 1))  # SessionLog.START: points read from an older file are void
        self._file.write(_framed(_event(_bytes(3, b"brain.Event:2"))) + _framed(_event(started)))
        self._file.write(b"".join(_framed(_scalars(record)) for record in records))
        self._file.flush()
        for path in old:
            path.unlink(missing_ok=True)

    def add(self, record: RoundRecord) -> None:
        """Append one round."""
        self._file.write(_framed(_scalars(record)))
        self._file.flush()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_events(folder: Storage, records: Sequence[RoundRecord]) -> None:
    """Write the rounds of one trajectory as the one event file of a folder of any storage, by a single request.

    An object cannot be appended to: on a remote storage the events of a trajectory come at its end.
    """
    _write(folder, [_scalars(record) for record in records])


def write_scalars(folder: Storage, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the numbers of each row as the one event file of a folder, the row's place being the step."""
    numbers = [{tag: float(x) for tag, x in row.items() if isinstance(x, int | float)} for row in rows]
    _write(folder, [_values(step, row) for step, row in enumerate(numbers)])


def _write(folder: Storage, events: Sequence[bytes]) -> None:
    opening = [_event(_bytes(3, b"brain.Event:2")), _event(_message(7, _varint(1, 1)))]  # SessionLog.START
    folder.write("events.out.tfevents.ray-al", b"".join(_framed(event) for event in [*opening, *events]))


def _scalars(record: RoundRecord) -> bytes:
    """One event with a value for each of SCALARS."""
    return _values(record.labels, {tag: float(getattr(record, field)) for tag, field in SCALARS.items()})


def _values(step: int, values: Mapping[str, float]) -> bytes:
    summary = b"".join(
        _message(1, _bytes(1, tag.encode()) + b"\x15" + struct.pack("<f", x)) for tag, x in values.items()
    )
    at = _varint(2, step) if step else b""  # a 0 is left out, as protocol buffers have it
    return _event(at + _message(5, summary))


def _event(body: bytes) -> bytes:
    """tensorflow.Event: 1 wall_time (double), 2 step, 3 file_version, 5 summary, 7 session_log."""
    return b"\x09" + struct.pack("<d", time.time()) + body


def _varint(field: int, value: int) -> bytes:
    return bytes([field << 3]) + bytes(_base128(value))


def _bytes(field: int, value: bytes) -> bytes:
    return bytes([field << 3 | 2]) + bytes(_base128(len(value))) + value


_message = _bytes  # a nested message is written as the bytes of its encoding


def _base128(value: int) -> Iterator[int]:
    """Protocol-buffer varint: seven bits a byte, lowest first, the top bit says that more follow."""
    while value > 0x7F:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value


def _framed(data: bytes) -> bytes:
    """TFRecord: length, its checksum, the data, its checksum."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", _masked_crc(length)) + data + struct.pack("<I", _masked_crc(data))


@cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)  # Castagnoli polynomial, bits reversed
        table.append(byte)
    return tuple(table)


def _masked_crc(data: bytes) -> int:
    """CRC-32C, rotated and shifted as TFRecord wants it, so that a checksum of checksums stays sound."""
    crc, table = 0xFFFFFFFF, _crc_table()
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
