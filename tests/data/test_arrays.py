"""Own data from .npy, .npz and Parquet: one content, one fingerprint; every fault named."""

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from ray_al.data.validate import check_arrays
from tests.data.conftest import faults_of, load, toy, toy_images


def save(**arrays):
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)


OWN = {"name": "arrays", "features": "x.npy", "labels": "y.npy"}
WITH_TEST = {**OWN, "test_features": "tx.npy", "test_labels": "ty.npy"}


@pytest.fixture
def files(folder):
    """The toy data, in every format there is."""
    data = toy()
    x, y, tx, ty = data["train_features"], data["train_labels"], data["test_features"], data["test_labels"]
    save(x=x, y=y, tx=tx, ty=ty)
    np.savez(folder / "toy.npz", **data)
    np.savez("toy.npz", **data)
    np.savez("bag.npz", a=x, b=y, c=tx, d=ty)
    for name, rows, labels in (("train", x, y), ("test", tx, ty)):
        columns = {f"f{i}": rows[:, i].astype(np.float64) for i in range(3)}
        parquet.write_table(pa.table({"label": labels, **columns}), f"wide_{name}.parquet")
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 3)
        parquet.write_table(pa.table({"vector": vectors, "label": labels}), f"list_{name}.parquet")
        lists = pa.array([list(map(float, row)) for row in rows], pa.list_(pa.float32()))
        parquet.write_table(
            pa.table({"id": np.arange(len(rows)), "vector": lists, "label": labels}), f"l_{name}.parquet"
        )
    return data


def test_equal_data_has_one_fingerprint_wherever_it_comes_from(files):
    entries = [
        "toy",
        WITH_TEST,
        {"name": "arrays", "features": "toy.npz"},
        {
            "name": "arrays",
            "features": "toy.npz",
            "labels": "y.npy",
            "test_features": "tx.npy",
            "test_labels": "ty.npy",
        },
        {
            "name": "arrays",
            "features": "bag.npz:a",
            "labels": "bag.npz:b",
            "test_features": "bag.npz:c",
            "test_labels": "bag.npz:d",
        },
        {"name": "arrays", "features": "wide_train.parquet", "labels": "label", "test_features": "wide_test.parquet"},
        {"name": "arrays", "features": "list_train.parquet", "labels": "label", "test_features": "list_test.parquet"},
        {"name": "arrays", "features": "l_train.parquet", "labels": "label", "test_features": "l_test.parquet"},
        {
            "name": "arrays",
            "features": "list_train.parquet:vector",
            "labels": "wide_train.parquet:label",
            "test_features": "tx.npy",
            "test_labels": "ty.npy",
        },
    ]
    loaded = [load(entry) for entry in entries]
    assert len({d.fingerprint for d in loaded}) == 1
    for dataset in loaded:
        np.testing.assert_array_equal(dataset.arrays["pool"], files["train_features"])
        np.testing.assert_array_equal(dataset.test_labels, files["test_labels"])
        assert dataset.kind == "features"
        assert dataset.classes == 4
        assert dataset.pool_labels.dtype == np.int64


def test_a_change_of_one_value_dtype_or_shape_changes_the_fingerprint(files):
    before = load(WITH_TEST).fingerprint
    seen = {before}
    x = files["train_features"]
    for changed in (x + np.eye(40, 3, dtype=np.float32), x.astype(np.float16), x[:, :2]):
        save(x=changed, tx=files["test_features"][:, : changed.shape[1]].astype(changed.dtype))
        seen.add(load(WITH_TEST).fingerprint)
    save(x=x, tx=files["test_features"], y=np.roll(files["train_labels"], 1))
    seen.add(load(WITH_TEST).fingerprint)
    assert len(seen) == 5


def test_memory_layout_and_byte_order_do_not_matter(files):
    before = load(WITH_TEST).fingerprint
    save(x=np.asfortranarray(files["train_features"]), y=files["train_labels"].astype(np.uint8))
    assert load(WITH_TEST).fingerprint == before
    save(x=files["train_features"].astype(">f4"))
    assert load(WITH_TEST).fingerprint == before


def test_images_are_told_by_their_axes():
    data = toy_images()
    save(x=data["train_images"], y=data["train_labels"])
    dataset = load(OWN)
    assert dataset.kind == "images"
    assert dataset.arrays["pool"].shape == (32, 6, 5, 3)
    assert dataset.arrays["test"].shape == (8, 6, 5, 3)


def test_arrays_cannot_be_written(files):
    dataset = load(WITH_TEST)
    for array in (*dataset.arrays.values(), dataset.pool_labels, dataset.test_labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def bad(values, index, value):
    values = values.copy()
    values[index] = value
    return values


X, Y = toy()["train_features"], toy()["train_labels"]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (bad(X, (7, 2), np.nan), Y, "train_features (x.npy) has 1 values that are NaN or infinite"),
        (bad(X, (7, 2), np.nan), Y, "the first in row 7, column 2"),
        (bad(X.astype(float), (3, 0), 1e300), Y, "NaN or infinite (as float32 at most), the first in row 3, column 0"),
        (X[:, 0], Y, "train_features (x.npy) has shape (40,); features are N x D"),
        (X[:, :0], Y, "train_features (x.npy) has shape (40, 0)"),
        (X.astype(str), Y, "features are numbers"),
        (X.reshape(40, 3, 1), Y, "train_images (x.npy) has dtype float32; images are uint8"),
        (np.zeros((40, 3, 8, 8), np.uint8), Y, "the last axis is the channels, of which 1 to 4 are possible"),
        (np.zeros((40, 2, 2, 1, 1), np.uint8), Y, "images are N x H x W or N x H x W x C"),
        (X, Y[:-1], "train_labels (y.npy) has 39 entries, but there are 40 train rows"),
        (X, Y.astype(float), "train_labels (y.npy) has dtype float64; labels are integers 0..C-1"),
        (X, Y.astype(str), "labels are integers 0..C-1"),
        (X, np.stack([Y, Y], 1), "train_labels (y.npy) has shape (40, 2)"),
        (X, Y - 1, "train_labels (y.npy) has values from -1 to 2; labels are 0..C-1"),
        (X, np.full(40, 2**63, np.uint64), "labels are 0..C-1"),
        (X, Y + 1, "there are 5 classes, but 1 of them have no training rows: 0"),
        (X, bad(Y, 0, 2**30), "of them have no training rows: 4, 5, 6, 7, 8, ..."),
        (X, Y * 0, "train_labels hold class 0 only; at least two classes are needed"),
        (X[:2], np.arange(2), "every class has a single row"),
    ],
)
def test_faults_of_own_arrays_are_named(x, y, message):
    save(x=x, y=y)
    found = faults_of(OWN)
    assert len(found) == 1
    assert message in found[0]
    assert found[0].startswith("dataset 'x': ")


@pytest.mark.parametrize(
    ("tx", "ty", "message"),
    [
        (X[:, :2], Y, "training rows have shape (3,) and test rows (2,)"),
        (np.zeros((40, 3, 3), np.uint8), Y, "the training split has features and the test split images"),
        (X, Y + 1, "test_labels reach 4, but train_labels only 3"),
        (X[:0], Y[:0], "test_features (tx.npy) has shape (0, 3)"),
    ],
)
def test_faults_of_the_test_split_are_named(tx, ty, message):
    save(x=X, y=Y, tx=tx, ty=ty)
    assert any(message in fault for fault in faults_of(WITH_TEST))


def test_all_faults_of_the_data_come_at_once():
    save(x=bad(X, 0, np.nan), y=Y[:-1], tx=X[:, 0], ty=Y.astype(float))
    assert len(faults_of(WITH_TEST)) == 4


def test_missing_and_broken_files_are_named_together(tmp_path):
    found = faults_of({**WITH_TEST, "features": "x.npz:a"})
    assert [fault.partition(": ")[2] for fault in found] == [
        "x.npz is missing",
        "y.npy is missing",
        "tx.npy is missing",
        "ty.npy is missing",
    ]
    for name in ("x.npy", "x.npz", "x.parquet"):
        (tmp_path / name).write_bytes(b"no data at all")
        assert f"{name} cannot be read" in faults_of({**OWN, "features": name, "labels": name})[0]


def test_a_truncated_npz_is_a_fault(files, folder):
    data = (folder / "toy.npz").read_bytes()
    (folder / "toy.npz").write_bytes(data[: len(data) // 2])
    assert "toy.npz cannot be read" in faults_of("toy")[0]
    damaged = bytearray(data)
    damaged[200] ^= 255
    (folder / "toy.npz").write_bytes(damaged)
    assert "toy.npz cannot be read" in faults_of("toy")[0]


def test_python_objects_are_never_read(folder):
    np.save("x.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.savez(folder / "evil.npz", train_features=np.array([print], object), train_labels=np.zeros(1, int))
    save(y=Y)
    assert "Python objects are never read" in faults_of(OWN)[0]
    assert "Python objects are never read" in faults_of("evil")[0]


def test_wrong_keys_and_columns_are_named_with_the_choices(files, folder):
    np.savez(folder / "odd.npz", images=X, labels=Y)
    np.savez(folder / "half.npz", train_features=X)
    np.savez(folder / "both.npz", train_features=X, train_images=X, train_labels=Y)
    own = {"name": "arrays", "labels": "y.npy"}
    assert "odd.npz holds images, labels, but no train_images" in faults_of("odd")[0]
    assert "train_labels is missing" in faults_of("half")[0]
    assert "both train_images and train_features" in faults_of("both")[0]
    assert "bag.npz holds a, b, c, d; name one of them as bag.npz:key" in faults_of({**own, "features": "bag.npz"})[0]
    assert "bag.npz has no array 'e'" in faults_of({**own, "features": "bag.npz:e"})[0]
    wrong = {"name": "arrays", "features": "wide_train.parquet", "labels": "lable"}
    assert "wide_train.parquet has no column 'lable'; did you mean 'label'?" in faults_of(wrong)[0]


def test_faults_of_parquet_columns_are_named():
    rows = {
        "text": (pa.table({"a": X[:, 0], "t": ["x"] * 40, "label": Y}), "column 't' is string"),
        "null": (pa.table({"a": pa.array([None, *X[1:, 0].tolist()]), "label": Y}), "column 'a' has 1 empty (null)"),
        "ragged": (pa.table({"v": [[1.0], [1.0, 2.0]] * 20, "label": Y}), "have 1 to 2 entries, not one length"),
        "holes": (pa.table({"v": [[1.0, None]] * 40, "label": Y}), "must hold numbers without nulls"),
        "two": (pa.table({"v": [[1.0]] * 40, "w": [[1.0]] * 40, "label": Y}), "several list columns (v, w)"),
        "none": (pa.table({"label": Y}), "has no feature columns"),
    }
    for name, (table, message) in rows.items():
        parquet.write_table(table, f"{name}.parquet")
        found = faults_of({"name": "arrays", "features": f"{name}.parquet", "labels": "label"})
        assert message in found[0]


@pytest.mark.parametrize("key", ["train_features", "train_labels", "class_names", "pixel_max"])
def test_lists_of_unequal_length_are_a_fault(key):
    _, faults = check_arrays({**toy(), key: [[1], [1, 2]]})
    assert any(f"{key} is no array" in fault for fault in faults)
