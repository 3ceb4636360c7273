"""The examples of docs/data.md hold."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from ray_al.data.datasets import load_dataset, parse_dataset
from ray_al.data.space_definitions import parse_spaces

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_entry_of_the_page_parses():
    entries = [entry for block in blocks("yaml") for entry in yaml.safe_load(block).get("axes", {}).get("dataset", [])]
    assert len(entries) == 13
    labels = [parse_dataset(entry).label for entry in entries]
    assert "mine" in labels
    assert set(parse_spaces(yaml.safe_load(blocks("yaml")[-1])["spaces"])) == {"small", "ssl", "ssl32", "latent"}


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
