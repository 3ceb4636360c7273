"""The examples of docs/data.md hold."""

import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from ray_al.config import parse_sweep
from ray_al.data.datasets import load_dataset, parse_dataset
from ray_al.data.space_definitions import parse_spaces
from tests.data.conftest import toy
from tests.data.picture_files import write_folder

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_entry_of_the_page_parses():
    entries = [entry for block in blocks("yaml") for entry in yaml.safe_load(block).get("axes", {}).get("dataset", [])]
    assert len(entries) == 13
    labels = [parse_dataset(entry).label for entry in entries]
    assert "mine" in labels
    assert set(parse_spaces(yaml.safe_load(blocks("yaml")[-1])["spaces"])) == {"small", "ssl", "ssl32", "latent"}


def test_own_data_loads_as_copied():
    """All entries in one sweep, on files of the kinds that the page names."""
    data = toy()
    np.savez("bundle.npz", **data)
    x, y = data["train_features"], data["train_labels"]
    np.savez("bag.npz", clip=x + 1, y=y)
    for name, key in (("x", "train_features"), ("y", "train_labels"), ("tx", "test_features"), ("ty", "test_labels")):
        np.save(f"{name}.npy", data[key] + (name == "tx"))  # another test split than the bundle's
    parquet.write_table(pa.table({"species": y, "embedding": list(x + 2), "id": np.arange(len(x))}), "table.parquet")
    write_folder(Path("pets"), {"cat": 3, "dog": 3})
    datasets = yaml.safe_load(blocks("yaml")[1])["axes"]["dataset"]
    axes = {"dataset": datasets, "learner": "logreg", "strategy": "random", "seed": 1}
    sweep = parse_sweep({"name": "own", "axes": axes, "protocol": {"initial": 2, "batch": 1, "rounds": 2}})
    labels = ["mine", "x", "bundle", "bag", "table", "table[test_fraction=0.1]", "pets"]
    assert [dataset.label for dataset in sweep.datasets] == labels
    assert [dataset.arrays["pool"].shape[1:] for dataset in sweep.datasets[4:]] == [(3,), (3,), (64, 64, 3)]


@pytest.fixture
def my_pkg(tmp_path, monkeypatch):
    (tmp_path / "my_pkg").mkdir()
    (tmp_path / "my_pkg" / "mine.py").write_text(blocks("python")[0])
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_pkg.mine", None)
    sys.modules.pop("my_pkg", None)


def test_the_function_of_the_page_is_a_dataset(my_pkg):
    entry = yaml.safe_load(blocks("yaml")[2])["axes"]["dataset"][0]
    dataset = load_dataset(parse_dataset(entry))
    assert dataset.arrays["pool"].shape == (2000, 2)
    assert len(dataset.test_labels) == 1000


def test_the_python_of_the_page_runs():
    scope = {}
    exec(blocks("python")[1], scope)
    assert scope["pixels"].shape == (1438, 64)
