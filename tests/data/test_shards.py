"""A folder while it is being filled: whose it is, what is cleared from it, which shards count."""

import numpy as np
import pytest

from ray_al.data.embeddings.shards import ShardFolder, claimed
from ray_al.data.faults import DataError
from tests.data.filled_folders import SETTINGS


def test_a_folder_belongs_to_its_settings(tmp_path):
    folder = ShardFolder(tmp_path / "emb", 8)
    folder.path.mkdir()
    folder.begin({"format": 1, "backbone": {"name": "resnet18"}, "batch": 4})
    folder.write("train", 0, np.ones((8, 2), np.float16), {})
    folder.begin({"batch": 4, "backbone": {"name": "resnet18"}, "format": 1})
    with pytest.raises(DataError) as caught:
        folder.begin({"format": 1, "backbone": {"name": "resnet50"}, "batch": 4, "limit": 3})
    assert "was begun with other settings" in caught.value.faults[0]
    assert caught.value.faults[1:] == (
        "backbone.name was 'resnet18', and is 'resnet50' now",
        "limit was None, and is 3 now",
    )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(DataError, match="is not empty and holds no settings"):
        ShardFolder(tmp_path / "full", 8).begin({})
    with claimed(folder.path), pytest.raises(DataError, match="another extraction into"), claimed(folder.path):
        pass
    with claimed(folder.path):  # free again
        pass


def test_settings_bind_nobody_before_the_first_shard(tmp_path):
    folder = ShardFolder(tmp_path / "emb", 8)
    folder.path.mkdir()
    folder.begin({**SETTINGS, "device": "cuda"})
    assert folder.begun() is None
    folder.begin({**SETTINGS, "device": "cpu"})
    folder.write("train", 0, np.ones((8, 2), np.float16), {})
    assert folder.begun() == {**SETTINGS, "device": "cpu"}
    with pytest.raises(DataError, match="device was 'cpu', and is 'cuda' now"):
        folder.begin({**SETTINGS, "device": "cuda"})


@pytest.mark.parametrize("held", ["thesis.tex", "settings.json"])
def test_nothing_of_another_folder_is_touched(tmp_path, held):
    """Names like those of drafts, in a folder whose settings.json, if any, is another program's."""
    full = tmp_path / "full"
    full.mkdir()
    (full / held).write_text('{"editor.fontSize": 12}')
    (full / ".bashrc.original").write_text("mine")
    (full / ".manifest.json.0123abcd").write_text("mine")
    (full / "shards").mkdir()
    (full / "shards" / ".hidden").write_text("mine")
    before = sorted(full.rglob("*"))
    with pytest.raises(DataError, match="is not empty and holds no settings"):
        ShardFolder(full, 8).begin(SETTINGS)
    with pytest.raises(DataError, match="is not empty and holds no settings"), claimed(full):
        pass
    assert sorted(full.rglob("*")) == before


def test_drafts_alone_are_cleared(tmp_path):
    full = tmp_path / "emb"
    (full / ".git.disabled").mkdir(parents=True)
    (full / ".bashrc.original").write_text("mine")
    (full / ".settings.json.0123abcd").write_text("half")
    with claimed(full):
        ShardFolder(full, 8).begin(SETTINGS)
    left = {".git.disabled", ".bashrc.original", ".lock", "settings.json"}
    assert {p.name for p in full.iterdir()} == left


def test_only_whole_shards_count_and_drafts_are_cleared(tmp_path):
    folder = ShardFolder(tmp_path / "emb", 4)
    folder.path.mkdir()
    folder.begin(SETTINGS)
    folder.write("train", 1, np.ones((4, 2), np.float16), {5: "broken"})
    assert folder.missing("train", 10) == [0, 2]
    draft = tmp_path / "emb" / "shards" / ".train-000000.npy.12345678"
    draft.write_bytes(b"half")
    (tmp_path / "emb" / ".manifest.json.12345678").write_bytes(b"half")
    folder.begin(SETTINGS)
    assert sorted(p.name for p in (tmp_path / "emb").rglob("*") if p.is_file()) == [
        "settings.json",
        "train-000001.json",
        "train-000001.npy",
    ]
    assert folder.failures("train", 1) == {5: "broken"}
