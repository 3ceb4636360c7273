"""Folders of embeddings without an extraction: random rows of small pictures."""

import numpy as np

from ray_al.data.embeddings.assemble import finish
from ray_al.data.embeddings.read import FORMAT
from ray_al.data.embeddings.shards import ShardFolder
from ray_al.data.items.sources import list_images, parse_source
from tests.data.picture_files import write_folder

SETTINGS = {"format": FORMAT, "batch": 4}


def write_photos(root):
    """22 training and 6 test pictures of three classes."""
    write_folder(root / "train", {"a": 9, "b": 6, "c": 7})
    write_folder(root / "test", {"a": 2, "b": 3, "c": 1}, first=40)
    return root


def fill(out, listing, failed=(), width=5, shard=8):
    """Shards of random rows, as an extraction would leave them. Returns all rows by split."""
    folder = ShardFolder(out, shard)
    out.mkdir(exist_ok=True)
    folder.begin(SETTINGS)
    rng = np.random.default_rng(0)
    rows = {s: rng.normal(size=(len(items), width)).astype(np.float16) for s, items in listing.splits.items()}
    for split, values in rows.items():
        for k in folder.missing(split, len(values)):
            part = slice(k * shard, (k + 1) * shard)
            broken = {item: f"broken {item}" for name, item in failed if name == split and item // shard == k}
            folder.write(split, k, values[part], broken)
    return folder, rows


def finished(out, photos):
    """(path, rows by split) of a finished folder."""
    listing = list_images([parse_source(f"imagefolder:{photos}")])
    folder, rows = fill(out, listing)
    finish(folder, listing, SETTINGS)
    return str(out), rows
