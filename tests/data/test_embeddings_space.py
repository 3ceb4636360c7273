"""Embeddings as a space of the images they are of: rows follow items, and rows of other items are refused."""

import os

import numpy as np
import pytest

from ray_al.data.artifacts import ArtifactStore
from ray_al.data.materialize import has_space, open_array, space_artifact
from ray_al.data.space_definitions import parse_space
from ray_al.data.spaces import space_faults, space_width
from ray_al.storage import Storage
from tests.data.conftest import load
from tests.data.filled_folders import finished, write_photos


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos")


@pytest.fixture
def made(photos, tmp_path):
    return finished(tmp_path / "emb", photos)


@pytest.mark.parametrize("options", [{}, {"limit": 10}, {"classes": [2, 1]}], ids=str)
def test_as_a_space_of_the_images_rows_follow_their_items(made, options):
    path, _ = made
    images = load({"name": "imagefolder", "path": "photos", "size": 8, **options})
    spec = parse_space("deep", {"name": "embeddings", "path": path})
    assert space_faults(spec, images) == []
    assert space_width(spec, images) == 5
    store = ArtifactStore(Storage.open("runs"))
    assert not has_space(store, images, spec)
    artifact = space_artifact(store, images, spec)
    same = load({"name": "embeddings", "path": path, **options})
    for part in ("pool", "test"):
        np.testing.assert_array_equal(open_array(artifact, part), np.asarray(same.arrays[part]))
    assert os.path.samefile(f"{path}/train.npy", artifact.path / "pool.npy") == (not options)
    assert has_space(store, images, spec)
    # Of another set of embeddings, too, where it is of the same items.
    assert space_faults(spec, same) == []


def test_embeddings_of_other_items_are_no_space(made, photos, tmp_path):
    path, _ = made
    spec = parse_space("deep", {"name": "embeddings", "path": path})

    def fault(**entry):
        (found,) = space_faults(spec, load({"name": "imagefolder", "path": "photos", "size": 8, **entry}))
        return found

    (photos / "train" / "a" / "000.png").rename(photos / "train" / "a" / "999.png")
    assert "its train rows have other names, or another order" in fault()
    (photos / "train" / "a" / "999.png").unlink()
    assert "it has 22 train rows, but the dataset has 21" in fault()
    data = load({"name": "embeddings", "path": path})
    np.savez("plain.npz", train_features=data.arrays["pool"], train_labels=data.pool_labels[::-1])
    (found,) = space_faults(spec, load({"name": "arrays", "features": "plain.npz"}))
    assert "18 of its train rows have another label than the dataset's items, the first row 0" in found
    np.savez("plain.npz", train_features=data.arrays["pool"], train_labels=data.pool_labels)
    assert space_faults(spec, load({"name": "arrays", "features": "plain.npz"})) == []


def test_own_functions_may_name_their_items(made, tmp_path, monkeypatch):
    path, _ = made
    (tmp_path / "own_items.py").write_text(
        "import numpy as np\n"
        "def load(path, shift=0):\n"
        "    labels = np.load(f'{path}/train_labels.npy')\n"
        "    import pyarrow.parquet as pq\n"
        "    names = pq.read_table(f'{path}/train_items.parquet')['name'].to_pylist()\n"
        "    return {'train_features': np.eye(len(labels)), 'train_labels': labels,\n"
        "            'train_names': names[shift:] + names[:shift]}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = parse_space("deep", {"name": "embeddings", "path": path})
    assert space_faults(spec, load({"name": "own_items:load", "path": path})) == []
    (found,) = space_faults(spec, load({"name": "own_items:load", "path": path, "shift": 1}))
    assert "other names, or another order" in found
