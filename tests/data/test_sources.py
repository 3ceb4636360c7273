"""Known datasets: digits, torchvision's own files, image folders, own functions, and the real files."""

import hashlib
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from ray_al.data.sources import DATASETS
from tests.data.conftest import faults_of, load, toy, toy_images

GRAY = toy_images(rows=30, classes=10, shape=(28, 28), test=20)
COLOR = toy_images(rows=50, classes=10, shape=(32, 32, 3), test=20)


def idx(array):
    """An array in the IDX format of MNIST."""
    array = np.asarray(array, np.uint8)
    return bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape) + array.tobytes()


def equals(dataset, arrays):
    np.testing.assert_array_equal(dataset.arrays["pool"], arrays["train_images"])
    np.testing.assert_array_equal(dataset.arrays["test"], arrays["test_images"])
    np.testing.assert_array_equal(dataset.pool_labels, arrays["train_labels"])
    np.testing.assert_array_equal(dataset.test_labels, arrays["test_labels"])


def same_as_npz(folder, name, dataset, arrays):
    equals(dataset, arrays)
    np.savez(folder / f"{name}.npz", **arrays)
    assert load(name).fingerprint == dataset.fingerprint


def test_digits():
    dataset = load("digits")
    assert dataset.arrays["pool"].shape[1:] == (8, 8)
    assert (len(dataset.pool_labels), len(dataset.test_labels)) == (1438, 359)
    assert dataset.pixel_max == dataset.arrays["pool"].max() == 16
    counts = np.bincount(dataset.pool_labels), np.bincount(dataset.test_labels)
    np.testing.assert_allclose(counts[1] / (counts[0] + counts[1]), 0.2, atol=0.005)
    assert dataset.class_names == tuple("0123456789")
    # The split is fixed: its seed is no option of digits, and the content is known.
    assert dataset.fingerprint.startswith("018bf5ed70f6")


@pytest.mark.parametrize(("name", "subfolder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist_files_through_torchvision(name, subfolder, folder, tmp_path):
    raw = tmp_path / "tv" / subfolder / "raw"
    raw.mkdir(parents=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(idx(GRAY[f"{split}_images"]))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(GRAY[f"{split}_labels"]))
    dataset = load({"name": name, "root": "tv"})
    assert len(dataset.class_names) == 10
    same_as_npz(folder, name, dataset, GRAY)


@pytest.mark.parametrize(("name", "fine"), [("cifar10", ""), ("cifar100", "fine_")])
def test_cifar_files_through_torchvision(name, fine, folder, tmp_path, monkeypatch):
    from torchvision import datasets

    kind = getattr(datasets, name.upper())
    root = tmp_path / "tv" / kind.base_folder
    root.mkdir(parents=True)

    def put(file, content):
        data = pickle.dumps(content)
        (root / file).write_bytes(data)
        return hashlib.md5(data, usedforsecurity=False).hexdigest()

    def batch(split, part):
        images = COLOR[f"{split}_images"][part].transpose(0, 3, 1, 2).reshape(-1, 3072)
        return {"data": images, f"{fine}labels": COLOR[f"{split}_labels"][part].tolist()}

    train = [file for file, _ in kind.train_list]
    size = 50 // len(train)
    parts = {file: batch("train", slice(i * size, (i + 1) * size)) for i, file in enumerate(train)}
    monkeypatch.setattr(kind, "train_list", [(file, put(file, part)) for file, part in parts.items()])
    test_file = kind.test_list[0][0]
    monkeypatch.setattr(kind, "test_list", [(test_file, put(test_file, batch("test", slice(None))))])
    names = {kind.meta["key"]: [f"class {i}" for i in range(10)]}
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": put(kind.meta["filename"], names)})
    dataset = load({"name": name, "root": "tv"})
    assert dataset.class_names[3] == "class 3"
    same_as_npz(folder, name, dataset, COLOR)
    (root / train[0]).write_bytes(b"damaged")
    (folder / f"{name}.npz").unlink()
    assert f"torchvision cannot read {name} (train)" in faults_of({"name": name, "root": "tv"})[0]


def test_svhn_files_through_torchvision(folder, tmp_path, monkeypatch):
    from scipy.io import savemat
    from torchvision import datasets

    (tmp_path / "tv").mkdir()
    splits = dict(datasets.SVHN.split_list)
    for split in ("train", "test"):
        images, labels = COLOR[f"{split}_images"], COLOR[f"{split}_labels"]
        file = tmp_path / "tv" / f"{split}_32x32.mat"
        # In the .mat files, the digit 0 has label 10 and the item is the last axis.
        savemat(file, {"X": images.transpose(1, 2, 3, 0), "y": np.where(labels == 0, 10, labels)[:, None]})
        md5 = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
        splits[split] = [splits[split][0], file.name, md5]
    monkeypatch.setattr(datasets.SVHN, "split_list", splits)
    same_as_npz(folder, "svhn", load({"name": "svhn", "root": "tv"}), COLOR)


def test_missing_known_data_names_both_ways(folder, monkeypatch):
    message = faults_of("mnist")[0]
    assert f"there is no mnist.npz in {folder} (RAY_AL_DATA)" in message
    assert "give `root:` (torchvision's files) or `download: true`" in message
    monkeypatch.delenv("RAY_AL_DATA")
    assert "RAY_AL_DATA is not set; put mnist.npz" in faults_of("mnist")[0]
    assert "`download: true` fetches them" in faults_of({"name": "mnist", "root": "nowhere"})[0]


@pytest.fixture
def photos(tmp_path):
    from PIL import Image

    def make(*names, size=(40, 30)):
        for i, name in enumerate(names):
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size, (10 * i, 100, 200)).save(file)

    return make


def test_image_folder(photos, tmp_path):
    photos(*(f"pets/{kind}/{i}.png" for kind in ("dog", "cat", "emu") for i in range(5)))
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "pets" / ".hidden").mkdir()
    dataset = load({"name": "imagefolder", "path": "pets", "size": 16})
    assert dataset.class_names == ("cat", "dog", "emu")
    assert dataset.label == "pets"
    assert dataset.arrays["pool"].shape == (12, 16, 16, 3)
    assert np.bincount(dataset.test_labels).tolist() == [1, 1, 1]
    assert {int(image[0, 0, 0]) for image in dataset.arrays["pool"][dataset.pool_labels == 1]} <= {0, 10, 20, 30, 40}


def test_image_folder_with_splits(photos):
    photos("d/train/a/1.png", "d/train/b/x/2.jpg", "d/test/b/3.png", size=(8, 8))
    dataset = load({"name": "imagefolder", "path": "d", "size": 8})
    assert dataset.pool_labels.tolist() == [0, 1]
    assert dataset.test_labels.tolist() == [1]
    photos("d/test/c/4.png")
    assert "no class of the training split; known: a, b" in faults_of({"name": "imagefolder", "path": "d"})[0]


def test_image_folder_faults_name_the_files(photos, tmp_path):
    photos("d/a/1.png", "d/b/1.png")
    (tmp_path / "d/a/broken.png").write_bytes((tmp_path / "d/a/1.png").read_bytes()[:40])
    (tmp_path / "d/b/fake.jpg").write_text("no image")
    found = faults_of({"name": "imagefolder", "path": "d"})
    assert len(found) == 2
    assert "d/a/broken.png cannot be decoded" in found[0]
    assert "d/b/fake.jpg cannot be decoded" in found[1]
    for i in range(20):
        (tmp_path / f"d/b/{i}.png").write_text("no image")
    assert faults_of({"name": "imagefolder", "path": "d"})[-1].endswith("and 12 more files that cannot be decoded")
    (tmp_path / "d/empty").mkdir()
    assert "d/empty has no images" in faults_of({"name": "imagefolder", "path": "d"})[0]
    assert "nowhere is not a folder" in faults_of({"name": "imagefolder", "path": "nowhere"})[0]
    assert "at least two" in faults_of({"name": "imagefolder", "path": "d/a"})[0]


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    code = """
import numpy as np
def load_it(rows=40, scale=1.0):
    rng = np.random.default_rng(0)
    return {"train_features": scale * rng.normal(size=(rows, 3)), "train_labels": np.arange(rows) % 2}
def not_a_mapping():
    return 3
def typo():
    return {"train_feature": np.zeros((4, 2)), "train_labels": np.arange(4) % 2}
"""
    (tmp_path / "my_own_data.py").write_text(code)
    (tmp_path / "my_broken_data.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_own_data"
    sys.modules.pop("my_own_data", None)


def test_an_own_function_gets_the_other_keys_of_its_entry(own_module):
    dataset = load({"name": f"{own_module}:load_it", "rows": 60, "scale": 2.5, "limit": 30})
    assert dataset.label == "load_it[limit=30]"
    assert len(dataset.pool_labels) == 30
    assert dataset.arrays["pool"].dtype == np.float32
    assert json.loads(dataset.spec.settings) == {"rows": 60, "scale": 2.5}


def test_faults_of_an_own_function_are_named(own_module):
    assert "load_it failed: TypeError" in faults_of({"name": f"{own_module}:load_it", "size": 3})[0]
    assert "has no function 'load'; did you mean 'load_it'?" in faults_of(f"{own_module}:load")[0]
    assert "returned int; it must return a mapping" in faults_of(f"{own_module}:not_a_mapping")[0]
    assert "unknown array 'train_feature'; did you mean 'train_features'?" in faults_of(f"{own_module}:typo")[0]
    assert "cannot import no_such_module" in faults_of("no_such_module:f")[0]
    assert "cannot import my_broken_data: ZeroDivisionError" in faults_of("my_broken_data:f")[0]


def test_a_row_of_the_table_is_all_a_new_dataset_needs(monkeypatch):
    from ray_al.data.sources import Source

    monkeypatch.setitem(DATASETS, "mine", Source(toy))
    assert load("mine").classes == 4


def test_pixel_max_of_a_file(folder):
    arrays = toy_images()
    np.savez(folder / "dark.npz", **{key: v // 4 if "images" in key else v for key, v in arrays.items()}, pixel_max=63)
    assert load("dark").pixel_max == 63
    np.savez(folder / "wrong.npz", **arrays, pixel_max=9)
    assert "pixel_max is 9, but train_images reach" in faults_of("wrong")[0]
    np.savez(folder / "wrong.npz", **arrays, pixel_max=0, class_names=["a"])
    found = faults_of("wrong")
    assert "class_names has 1 names for 4 classes" in found[0]
    assert "pixel_max is array(0); it must be a whole number from 1 to 255" in found[1]


def test_real_mnist(real):
    dataset = real("mnist", classes=[5, 7])
    assert dataset.arrays["pool"].shape == (11686, 28, 28)
    assert dataset.classes == 2
    assert len(real("mnist").test_labels) == 10000


def test_real_cifar10(real):
    dataset = real("cifar10")
    assert dataset.arrays["pool"].shape == (50000, 32, 32, 3)
    assert np.bincount(dataset.pool_labels).tolist() == [5000] * 10


def test_real_features_keep_half_precision(real):
    dataset = real("cifar10_effnetlite0_pca256")
    assert dataset.arrays["pool"].dtype == np.float16
    assert dataset.kind == "features"


def test_no_heavy_imports():
    heavy = "('torch', 'torchvision', 'sklearn', 'scipy', 'faiss', 'ray', 'pyarrow')"
    code = f"import sys, ray_al.data.materialize; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
