"""What the workers of an extraction answer, and what the driver makes of it; without Ray's processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from ray_al.backbones.backbone import BackboneSpec, Loaded
from ray_al.backbones.preprocess import Preprocess
from ray_al.cluster import embed
from ray_al.cluster.extract import _blocks, _Rows
from ray_al.data.faults import DataError
from ray_al.data.items.listing import Listing, batch_table
from ray_al.data.items.sources import list_images, parse_source
from tests.data.picture_files import encoded, write_folder

LOADED = Loaded(BackboneSpec("x:y", None), Preprocess(16, 16), None, {})


@pytest.fixture
def listing(tmp_path: Path) -> Listing:
    write_folder(tmp_path / "photos", {"a": 5, "b": 5})
    return list_images([parse_source(f"imagefolder:{tmp_path / 'photos'}")])


def work(listing: Listing) -> embed.Work:
    return embed.Work({split: items.parts for split, items in listing.splits.items()}, LOADED, 4, "cpu")


def test_batches_are_full_and_broken_images_are_zeros(listing: Listing, tmp_path: Path) -> None:
    (tmp_path / "photos" / "b" / "003.png").write_bytes(b"no image")
    table = embed.decode(batch_table(listing.splits["train"], "train", range(0, 10, 4)), work(listing))
    rows = table.to_pylist()
    pixels = [np.frombuffer(row["pixels"], np.uint8).reshape(4, 16, 16, 3) for row in rows]
    assert [json.loads(row["failed"]).keys() for row in rows] == [{}.keys(), {}.keys(), {"0"}]
    data = (tmp_path / "photos" / "b" / "004.png").read_bytes()
    np.testing.assert_array_equal(pixels[2][1], LOADED.preprocess.pixels(data))
    assert not pixels[2][[0, 2, 3]].any()


def test_what_cannot_be_read_is_a_fault_and_no_broken_image(listing: Listing, tmp_path: Path) -> None:
    (tmp_path / "photos" / "b" / "001.png").unlink()
    rows = embed.decode(batch_table(listing.splits["train"], "train", range(0, 10, 4)), work(listing)).to_pylist()
    assert [bool(row["fault"]) for row in rows] == [False, True, False]
    assert "b/001.png cannot be read: FileNotFoundError" in rows[1]["fault"]


def test_a_row_without_an_image_is_a_broken_image(tmp_path: Path) -> None:
    table = pa.table({"image": pa.array([encoded(0), None], pa.binary()), "label": [0, 1]})
    parquet.write_table(table, tmp_path / "train.parquet")
    listing = list_images([parse_source(f"parquet:{tmp_path}")])
    (row,) = embed.decode(batch_table(listing.splits["train"], "train", range(0, 2, 4)), work(listing)).to_pylist()
    assert (row["fault"], json.loads(row["failed"])) == ("", {"1": "the row holds no bytes"})


def answer(row: int, rows: np.ndarray, failed: dict[int, str] | None = None, fault: str = "") -> dict[str, object]:
    return {"split": "train", "row": row, "rows": rows.tobytes(), "failed": json.dumps(failed or {}), "fault": fault}


def answers(broken: dict[int, str] | None = None) -> list[dict[str, object]]:
    rows = np.arange(36, dtype=np.float16).reshape(3, 4, 3) + 1
    return [answer(0, rows[0]), answer(4, rows[1], broken), answer(8, rows[2])]


def test_shards_are_put_together(listing: Listing) -> None:
    values, failed = _Rows(listing, LOADED, 4, False).collect(iter(answers({1: "no"})), "train", 0, 10)
    expected = np.arange(30).reshape(10, 3) + 1
    expected[5] = 0
    np.testing.assert_array_equal(values, expected)
    assert failed == {5: "no"}


def test_strict(listing: Listing) -> None:
    with pytest.raises(DataError, match=r"b/000.png of train cannot be decoded: no \(--strict\)"):
        _Rows(listing, LOADED, 4, True).collect(iter(answers({1: "no"})), "train", 0, 10)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.inf, r"the embedding of b/001.png \(train\) holds inf; float16 ends at 65504: --dtype float32 keeps it"),
        (np.nan, r"the embedding of b/001.png \(train\) holds nan$"),
    ],
)
def test_numbers_that_cannot_be_kept(listing: Listing, value: float, message: str) -> None:
    rows = np.ones((4, 3), np.float16)
    rows[2, 1] = value
    given = [answers()[0], answer(4, rows), answers()[2]]
    with pytest.raises(DataError, match=message):
        _Rows(listing, LOADED, 4, False).collect(iter(given), "train", 0, 10)
    broken = [answers()[0], answer(4, rows, {2: "no"}), answers()[2]]
    assert _Rows(listing, LOADED, 4, False).collect(iter(broken), "train", 0, 10)[1] == {6: "no"}


def test_faults_of_workers_reach_the_user(listing: Listing) -> None:
    given = [answers()[0], answer(4, np.zeros((0, 3), np.float16), fault="the backbone failed: RuntimeError: no")]
    with pytest.raises(DataError, match="the backbone failed: RuntimeError: no"):
        _Rows(listing, LOADED, 4, False).collect(iter(given), "train", 0, 10)


@pytest.mark.parametrize("actors", [1, 2, 50])
def test_blocks_hold_every_batch_once_and_in_order(listing: Listing, actors: int) -> None:
    todo = [("train", 0), ("train", 2)]
    tables = list(_blocks(listing.splits, todo, shard_rows=4, batch=2, actors=actors))
    assert [row["row"] for table in tables for row in table.to_pylist()] == [0, 2, 8]
