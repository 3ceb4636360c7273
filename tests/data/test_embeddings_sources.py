"""Sources of images: what is found, in which order, and what is wrong with others."""

import os
import sys

import numpy as np
import pytest
from PIL import Image

from ray_al.data.items.listing import batch_table
from tests.data.conftest import load
from tests.data.listings import contents, faults, listed
from tests.data.picture_files import encoded, picture, write_folder, write_lmdb, write_parquet


@pytest.mark.parametrize("second", ["test", "val"])
def test_image_folders_list_what_the_imagefolder_dataset_reads(tmp_path, second):
    write_folder(tmp_path / "p" / "train", {"b": 3, "a": 2, "a/deep": 1, "a-z": 1})
    write_folder(tmp_path / "p" / second, {"b": 2, "a": 1}, first=50)
    (tmp_path / "p" / "train" / "a" / "notes.txt").write_text("no image")
    (tmp_path / "p" / "train" / "a" / ".hidden.png").write_bytes(b"")
    found = listed(f"imagefolder:{tmp_path / 'p'}")
    train, test = found.splits["train"], found.splits["test"]
    assert found.class_names == ("a", "a-z", "b")
    assert list(train.names()) == ["a/000.png", "a/001.png", "a/deep/000.png", "a-z/000.png"] + [
        f"b/00{i}.png" for i in range(3)
    ]
    assert list(train.names([4, 0])) == ["b/000.png", "a/000.png"]
    assert train.sizes.tolist() == [len(data) for data in contents(train)]
    dataset = load({"name": "imagefolder", "path": str(tmp_path / "p"), "size": 8})
    np.testing.assert_array_equal(dataset.pool_labels, train.labels)
    np.testing.assert_array_equal(dataset.test_labels, test.labels)
    from ray_al.data.names import names_digest

    assert dataset.origin.names == {"train": names_digest(train.names()), "test": names_digest(test.names())}


def test_a_folder_without_splits_and_a_split_of_its_own(tmp_path):
    write_folder(tmp_path / "p", {"x": 2, "y": 1}, "jpg")
    write_folder(tmp_path / "q", {"y": 2}, "webp")
    assert listed(f"imagefolder:{tmp_path / 'p'}").splits.keys() == {"train"}
    found = listed(f"imagefolder:{tmp_path / 'p'}", f"test=imagefolder:{tmp_path / 'q'}")
    assert found.splits["test"].labels.tolist() == [1, 1]
    both = listed(f"imagefolder:{tmp_path / 'p'}", f"train=imagefolder:{tmp_path / 'q'}").splits["train"]
    assert contents(both)[-1] == (tmp_path / "q" / "y" / "001.webp").read_bytes()
    assert both.labels.tolist() == [0, 0, 1, 1, 1]
    assert faults(f"imagefolder:{tmp_path / 'q'}", f"test=imagefolder:{tmp_path / 'p'}") == (
        "the test split has 1 classes that the training split lacks: 'x'",
    )


def test_names_that_are_not_text_are_items_like_others(tmp_path):
    write_folder(tmp_path / "p", {"x": 1})
    odd = os.fsencode(tmp_path / "p" / "x") + b"/caf\xe9.png"
    try:
        with open(odd, "wb") as out:
            out.write(encoded(9))
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    items = listed(f"imagefolder:{tmp_path / 'p'}").splits["train"]
    assert list(items.names()) == ["x/000.png", "x/caf\\xe9.png"]
    assert contents(items)[1] == encoded(9)


def test_lsun(tmp_path):
    keys = {name: [f"{name}{i:038x}".encode() for i in (7, 3, 5)] for name in ("bedroom", "kitchen")}
    for number, (name, own) in enumerate(keys.items()):
        images = {key: encoded(10 * number + i, "webp", quality=90) for i, key in enumerate(own)}
        write_lmdb(tmp_path / f"{name}_train_lmdb", images)
        write_lmdb(tmp_path / f"{name}_val_lmdb", {b"\xff\x00": encoded(77 + number, "jpeg")})
    write_lmdb(tmp_path / "test_lmdb", {b"k": b"unlabeled"})
    found = listed(f"lsun:{tmp_path}")
    train, test = found.splits["train"], found.splits["test"]
    assert found.class_names == ("bedroom", "kitchen")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert list(train.names()) == [f"{n}_train_lmdb/{k.decode()}" for n in keys for k in sorted(keys[n])]
    assert contents(train)[0] == encoded(1, "webp", quality=90)  # of the least key
    assert train.sizes.tolist() == [len(data) for data in contents(train)]
    assert list(test.names()) == ["bedroom_val_lmdb/\\xff\x00", "kitchen_val_lmdb/\\xff\x00"]
    alone = listed(f"lsun:{tmp_path / 'kitchen_train_lmdb'}")
    assert contents(alone.splits["train"]) == contents(train)[3:]


def test_faults_of_lsun(tmp_path, monkeypatch):
    (tmp_path / "x_train_lmdb").mkdir()
    (tmp_path / "x_train_lmdb" / "data.mdb").write_bytes(b"not an LMDB" * 1000)
    assert "cannot be read as an LMDB" in faults(f"lsun:{tmp_path}")[0]
    (tmp_path / "empty").mkdir()
    assert "is no LMDB and holds none" in faults(f"lsun:{tmp_path / 'empty'}")[0]
    write_lmdb(tmp_path / "y_train_lmdb", {})
    assert faults(f"lsun:{tmp_path / 'y_train_lmdb'}")[0].endswith("is an empty LMDB")
    assert "is not a folder" in faults(f"lsun:{tmp_path / 'none'}")[0]
    write_lmdb(tmp_path / "z_train_lmdb", {b"k": b"v"})
    monkeypatch.setitem(sys.modules, "lmdb", None)
    assert faults(f"lsun:{tmp_path / 'z_train_lmdb'}") == (
        "reading LSUN's LMDBs needs the module lmdb: pip install 'ray-al[lsun]'",
    )


def test_a_truncated_lmdb_is_a_fault_before_it_is_read(tmp_path):
    write_lmdb(tmp_path / "x_train_lmdb", {f"{i:04d}".encode(): encoded(i) for i in range(60)})
    file = tmp_path / "x_train_lmdb" / "data.mdb"
    assert len(listed(f"lsun:{tmp_path}").splits["train"]) == 60
    copy = tmp_path / "copy" / "y_train_lmdb" / "data.mdb"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(file.read_bytes()[:30_000])
    (message,) = faults(f"lsun:{copy.parent}")
    assert "y_train_lmdb/data.mdb has 30000 of the " in message


def test_parquet_of_hugging_face(tmp_path):
    images = [encoded(i) for i in range(9)]
    data = tmp_path / "data"
    write_parquet(data / "train-00000-of-00002.parquet", images[:5], [2, 0, 0, 2, 1], ["cat", "dog", "owl"])
    write_parquet(data / "train-00001-of-00002.parquet", images[5:7], [0, 0], ["cat", "dog", "owl"])
    write_parquet(data / "validation-00000-of-00001.parquet", images[7:], [1, 0], ["cat", "dog", "owl"])
    found = listed(f"parquet:{tmp_path}")
    assert found.class_names == ("cat", "dog", "owl")
    assert contents(found.splits["train"]) == images[:7]
    assert found.splits["train"].labels.tolist() == [2, 0, 0, 2, 1, 0, 0]
    assert contents(found.splits["test"]) == images[7:]
    assert list(found.splits["train"].names([5])) == ["train-00001-of-00002.parquet:0"]
    write_parquet(data / "test-00000-of-00001.parquet", images[:1], [1], ["cat", "dog", "owl"])
    assert contents(listed(f"parquet:{tmp_path}").splits["test"]) == images[:1]


def test_parquet_of_plain_bytes(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    images = [encoded(i) for i in range(4)]
    one, two = tmp_path / "a.parquet", tmp_path / "b.parquet"
    parquet.write_table(pa.table({"data": pa.array(images, pa.large_binary()), "kind": [10, 2, 10, 9]}), one)
    parquet.write_table(pa.table({"data": images, "kind": [9, 11, 2, 2]}), two)
    found = listed(f"parquet:{tmp_path}", label_column="kind")
    assert found.class_names == ("2", "9", "10", "11")  # as numbers, not as texts
    assert found.splits["train"].labels.tolist() == [2, 0, 2, 1, 1, 3, 0, 0]
    parquet.write_table(pa.table({"data": images, "thumb": images, "label": ["u", "v", "u", None]}), one)
    two.unlink()
    assert "has several columns of images (data, thumb); name one with --image-column" in faults(f"parquet:{one}")[0]
    assert "column 'label' has 1 empty (null) values" in faults(f"parquet:{one}", image_column="data")[0]
    wrong = faults(f"parquet:{one}", image_column="dat", label_column="lable")[0]
    assert "has no column 'dat'; did you mean 'data'?" in wrong
    assert "images are bytes" in faults(f"parquet:{one}", image_column="label")[0]
    one.write_bytes(b"PAR1")
    assert "cannot be read as Parquet" in faults(f"parquet:{one}")[0]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("photos", "write it as kind:path"),
        ("imagefolders:photos", "unknown kind 'imagefolders'; did you mean 'imagefolder'?"),
        ("valid=imagefolder:p", "unknown kind 'valid=imagefolder'; did you mean 'imagefolder'?"),
        ("imagefolder:nowhere", "nowhere is not a folder"),
        ("parquet:nowhere", "nowhere is missing"),
    ],
)
def test_faulty_sources(source, message):
    assert message in faults(source)[0]


def test_all_faults_of_all_sources_come_together(tmp_path):
    (tmp_path / "p" / "empty").mkdir(parents=True)
    found = faults("lsun:none", f"imagefolder:{tmp_path / 'p'}", "test=imagenet:none")
    assert len(found) == 3
    assert "has no images; known suffixes" in found[1]


def test_a_limit_keeps_every_class_and_the_order(tmp_path):
    write_folder(tmp_path / "p" / "train", {"a": 20, "b": 10})
    write_folder(tmp_path / "p" / "test", {"a": 2})
    found = listed(f"imagefolder:{tmp_path / 'p'}")
    few = found.limited(9)
    assert np.bincount(few.splits["train"].labels).tolist() == [6, 3]
    assert len(few.splits["test"]) == 2
    everything = list(found.splits["train"].names())
    chosen = [everything.index(name) for name in few.splits["train"].names()]
    assert chosen == sorted(set(chosen))
    assert contents(few.splits["train"])[8] == contents(found.splits["train"])[chosen[8]]
    assert found.limited(None) is found


def test_a_changed_source_has_another_fingerprint(tmp_path):
    write_folder(tmp_path / "p", {"a": 3, "b": 3})
    before = listed(f"imagefolder:{tmp_path / 'p'}").fingerprint()
    assert listed(f"imagefolder:{tmp_path / 'p'}").fingerprint() == before
    (tmp_path / "p").rename(tmp_path / "elsewhere")
    assert listed(f"imagefolder:{tmp_path / 'elsewhere'}").fingerprint() == before
    file = tmp_path / "elsewhere" / "b" / "002.png"
    file.write_bytes(file.read_bytes() + b" ")
    other = listed(f"imagefolder:{tmp_path / 'elsewhere'}").fingerprint()
    file.rename(file.with_name("003.png"))
    assert len({before, other, listed(f"imagefolder:{tmp_path / 'elsewhere'}").fingerprint()}) == 3


def test_batches_have_fixed_boundaries(tmp_path):
    write_folder(tmp_path / "p", {"a": 4, "b": 7})
    items = listed(f"imagefolder:{tmp_path / 'p'}").splits["train"]
    rows = batch_table(items, "train", range(4, 11, 3)).to_pylist()
    assert [row["row"] for row in rows] == [4, 7, 10]
    keys = [key.decode() for row in rows for key in row["keys"]]
    assert keys == list(items.names())[4:]
    assert [len(row["keys"]) for row in rows] == [3, 3, 1]


def test_pictures_are_what_was_written(tmp_path):
    write_folder(tmp_path / "p", {"a": 2, "b": 1})
    data = contents(listed(f"imagefolder:{tmp_path / 'p'}").splits["train"])
    import io

    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data[2]))), picture(2))
