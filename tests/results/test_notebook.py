"""The notebook runs from top to bottom on a sweep's folder."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from ray_al.results.ledger import parquet_bytes
from ray_al.results.schema import to_table
from ray_al.storage import Storage

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "analyze_sweep.ipynb"


def write_sweep(folder: Path, results: pd.DataFrame) -> None:
    """Store a frame as the finished trajectories of a sweep."""
    table = to_table(results.astype(object).where(results.notna(), None).to_dict("records"))
    Storage.open(folder).write("results/done-0000-0123456789ab.parquet", parquet_bytes(table))


@pytest.mark.slow
def test_the_notebook_runs(sweep, rows, tmp_path, monkeypatch):
    strengths = {"random": 0.15, "margin": 0.4, "entropy": 0.2}
    failed = rows([0.5, 0.6], strategy="margin", seed=7, error="OutOfMemoryError")
    results = pd.concat([sweep(strengths, full=0.97, noise=0.004), failed])
    write_sweep(tmp_path / "demo", results)
    monkeypatch.setenv("RAY_AL_RESULTS", str(tmp_path / "demo"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": os.getcwd()}}).execute()
    shown = str([cell.get("outputs") for cell in notebook.cells])
    assert "margin wins" in shown
    assert "OutOfMemoryError" in shown
    assert "image/png" in shown


@pytest.mark.parametrize("opened_in", [".", "notebooks"])
def test_the_notebook_finds_the_quickstart(sweep, tmp_path, monkeypatch, opened_in):
    write_sweep(tmp_path / "runs" / "quickstart", sweep({"random": 0.15}))
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / opened_in)
    monkeypatch.delenv("RAY_AL_RESULTS", raising=False)
    first = next(cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code")
    scope = {}
    exec(first.source, scope)
    assert set(scope["results"].strategy) == {"random"}


def test_the_notebook_is_stored_without_outputs():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
