"""Folders of embeddings: from shards to arrays, as a dataset, and as a space of the images they are of."""

import json
import os
import tracemalloc

import numpy as np
import pytest
from pyarrow import parquet

from ray_al.data.artifacts import ArtifactStore
from ray_al.data.datasets import fingerprint
from ray_al.data.embeddings.assemble import finish, refuse_failures
from ray_al.data.embeddings.read import open_embeddings
from ray_al.data.faults import DataError
from ray_al.data.items.sources import list_images, parse_source
from ray_al.data.materialize import dataset_artifact, open_array
from ray_al.data.rows import Rows
from ray_al.storage import Storage
from tests.data.conftest import faults_of, load
from tests.data.filled_folders import SETTINGS, fill, finished, write_photos


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos")


@pytest.fixture
def made(photos, tmp_path):
    return finished(tmp_path / "emb", photos)


def test_a_finished_folder(photos, tmp_path):
    listing = list_images([parse_source(f"imagefolder:{photos}")])
    folder, rows = fill(tmp_path / "emb", listing, failed=[("train", 20), ("train", 0), ("test", 5)])
    finish(folder, listing, SETTINGS)
    found = open_embeddings(str(tmp_path / "emb"))
    kept = np.setdiff1d(np.arange(22), [0, 20])
    np.testing.assert_array_equal(found.rows("train"), rows["train"][kept])
    np.testing.assert_array_equal(found.labels("train"), listing.splits["train"].labels[kept])
    np.testing.assert_array_equal(found.rows("test"), rows["test"][:5])
    assert isinstance(found.rows("train"), np.memmap)
    assert (tmp_path / "emb" / "failures.csv").read_text().splitlines() == [
        "split,item,name,reason",
        "train,0,a/000.png,broken 0",
        "train,20,c/005.png,broken 20",
        "test,5,c/000.png,broken 5",
    ]
    names = parquet.read_table(tmp_path / "emb" / "train_items.parquet").to_pylist()
    assert names[0] == {"name": "a/001.png", "label": 0, "class": "a"}
    assert [row["name"] for row in names] == [
        name for i, name in enumerate(listing.splits["train"].names()) if i in kept
    ]
    assert found.manifest["splits"]["train"] | {"names": ""} == {"rows": 20, "width": 5, "failed": 2, "names": ""}
    arrays = {"pool": found.rows("train"), "pool_labels": found.labels("train")}
    arrays |= {"test": found.rows("test"), "test_labels": found.labels("test")}
    assert found.fingerprint == fingerprint(arrays)
    assert not (tmp_path / "emb" / "shards").exists()


def test_the_dataset_is_the_one_that_its_arrays_are(made):
    path, rows = made
    dataset = load({"name": "embeddings", "path": path})
    np.savez("plain.npz", **{f"{s}_features": r for s, r in rows.items()},
             train_labels=dataset.pool_labels, test_labels=dataset.test_labels)  # fmt: skip
    assert dataset.fingerprint == load({"name": "arrays", "features": "plain.npz"}).fingerprint
    assert (dataset.label, dataset.classes, dataset.class_names) == ("emb", 3, ("a", "b", "c"))
    np.testing.assert_array_equal(dataset.arrays["pool"], rows["train"])


OPTIONS = [{"classes": [2, 0]}, {"limit": 12}, {"imbalance": 3}, {"classes": [1, 2], "limit": 7, "label_noise": 0.3}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_choose_the_rows_they_choose_of_plain_arrays(made, options):
    path, rows = made
    whole = load({"name": "embeddings", "path": path})
    np.savez("plain.npz", **{f"{s}_features": r for s, r in rows.items()},
             train_labels=whole.pool_labels, test_labels=whole.test_labels)  # fmt: skip
    ours = load({"name": "embeddings", "path": path, **options})
    plain = load({"name": "arrays", "features": "plain.npz", **options})
    for part in ("pool", "test"):
        np.testing.assert_array_equal(ours.arrays[part], plain.arrays[part])
    np.testing.assert_array_equal(ours.pool_labels, plain.pool_labels)
    assert isinstance(ours.arrays["pool"], Rows)
    assert ours.fingerprint not in (whole.fingerprint, plain.fingerprint)
    assert ours.fingerprint == load({"name": "embeddings", "path": path, **options}).fingerprint
    store = ArtifactStore(Storage.open("runs"))
    np.testing.assert_array_equal(open_array(dataset_artifact(store, ours), "pool"), plain.arrays["pool"])


def test_identities_of_subsets_differ(made):
    path, _ = made
    found = {load({"name": "embeddings", "path": path, **options}).fingerprint for options in [{}, *OPTIONS]}
    found.add(load({"name": "embeddings", "path": path, "classes": [0, 1, 2]}).fingerprint)  # all there is
    found.add(load({"name": "embeddings", "path": path, "classes": [1, 0, 2]}).fingerprint)
    assert len(found) == 2 + len(OPTIONS)


def test_without_a_test_split_one_is_drawn(photos, tmp_path):
    listing = list_images([parse_source(f"imagefolder:{photos / 'train'}")])
    folder, rows = fill(tmp_path / "emb", listing)
    finish(folder, listing, SETTINGS)
    dataset = load({"name": "embeddings", "path": "emb", "test_fraction": 0.25})
    together = np.concatenate([np.asarray(dataset.arrays[part]) for part in ("pool", "test")])
    assert len(dataset.test_labels) == 6
    np.testing.assert_array_equal(np.unique(together, axis=0), np.unique(rows["train"], axis=0))


def test_artifacts_share_the_file_instead_of_copying_it(made):
    path, rows = made
    store = ArtifactStore(Storage.open("runs"))
    dataset = load({"name": "embeddings", "path": path})
    artifact = dataset_artifact(store, dataset)
    for split, part in (("train", "pool"), ("test", "test")):
        assert os.path.samefile(f"{path}/{split}.npy", artifact.path / f"{part}.npy")
        np.testing.assert_array_equal(open_array(artifact, part), rows[split])


def test_where_files_cannot_be_shared_they_are_copied(made, monkeypatch):
    path, rows = made

    def refuse(*args):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    artifact = dataset_artifact(ArtifactStore(Storage.open("runs")), load({"name": "embeddings", "path": path}))
    assert not os.path.samefile(f"{path}/train.npy", artifact.path / "pool.npy")
    np.testing.assert_array_equal(open_array(artifact, "pool"), rows["train"])


def test_neither_a_plan_nor_an_artifact_takes_the_rows_into_memory(photos, tmp_path):
    """60 MB of rows; what Python allocates on the way to the artifact stays far below."""
    listing = list_images([parse_source(f"imagefolder:{photos}")])
    folder, _ = fill(tmp_path / "emb", listing, width=1_000_000)
    tracemalloc.start()
    finish(folder, listing, SETTINGS)
    folder_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    store = ArtifactStore(Storage.open("runs"))
    whole = load({"name": "embeddings", "path": "emb"})
    dataset_artifact(store, whole)
    whole_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert whole.arrays["pool"].nbytes == 44_000_000
    assert folder_peak < 40_000_000  # a shard of 8 rows is 16 MB, read and packed
    assert whole_peak < 2_000_000


def test_faulty_folders(made, photos, tmp_path):
    def fault(path):
        (message,) = faults_of({"name": "embeddings", "path": path})
        return message.partition(": ")[2]

    path, _ = made
    assert "is not a folder" in fault("nowhere")
    assert "photos holds no embeddings (manifest.json is missing)" in fault("photos")
    with open(f"{path}/test_labels.npy", "ab") as out:
        out.write(b"x")
    assert "test_labels.npy is missing or was changed: it must have 176 bytes" in fault(path)
    manifest = json.loads((tmp_path / "emb" / "manifest.json").read_text())
    (tmp_path / "emb" / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    assert "is of format 99" in fault(path)
    (tmp_path / "emb" / "manifest.json").write_text("{")
    assert "is not the manifest of embeddings" in fault(path)
    fill(tmp_path / "half", list_images([parse_source(f"imagefolder:{photos}")]))
    assert "half is not finished; the same ray-al features command goes on" in fault("half")


def test_strict_minds_failures_of_a_run_before(photos, tmp_path):
    """In shards of which some are missing, then in the finished folder, where test/ is as broken."""
    listing = list_images([parse_source(f"imagefolder:{photos}")])
    folder, _ = fill(tmp_path / "whole", listing)
    refuse_failures(folder, listing)
    finish(folder, listing, SETTINGS)
    refuse_failures(folder, listing)
    folder, _ = fill(tmp_path / "emb", listing, failed=[("train", 20), ("test", 5)])
    with pytest.raises(DataError, match=r"c/005.png of train cannot be decoded: broken 20 \(--strict\)"):
        refuse_failures(folder, listing)
    finish(folder, listing, SETTINGS)
    with pytest.raises(DataError, match=r"c/005.png of train cannot be decoded: broken 20 \(--strict\)"):
        refuse_failures(folder, listing)
    folder, _ = fill(tmp_path / "part", listing, failed=[("test", 5)])
    (tmp_path / "part" / "shards" / "train-000001.npy").unlink()
    with pytest.raises(DataError, match=r"c/000.png of test cannot be decoded"):
        refuse_failures(folder, listing)


def test_a_split_without_a_whole_image_is_a_fault(photos, tmp_path):
    listing = list_images([parse_source(f"imagefolder:{photos}")])
    folder, _ = fill(tmp_path / "emb", listing, failed=[("test", i) for i in range(6)])
    with pytest.raises(DataError, match="none of the 6 images of the test split could be decoded: broken 0"):
        finish(folder, listing, SETTINGS)
