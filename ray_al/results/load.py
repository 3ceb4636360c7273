"""Results as a pandas DataFrame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ray_al.storage import Storage

if TYPE_CHECKING:
    import pandas as pd


def load_results(path: str | Path | Storage) -> pd.DataFrame:
    """Load a sweep's folder (local path or URI): one row per trajectory and round, in a fixed order.

    Works while the sweep runs, too: unfinished trajectories have fewer rounds, failed ones end in a row whose `status`
    is "failed" and whose metrics are NaN. See docs/results.md for the columns.

    Raises:
        FileNotFoundError: it is not a sweep's folder.
        ray_al.storage.DamagedFile: one of its files cannot be read.
    """
    from ray_al.results.dataset import read_sweep

    frame = read_sweep(_sweep(path)).to_pandas()
    # Failure rows have no counts; a nullable type keeps those of all other rows whole numbers.
    frame = frame.astype(dict.fromkeys(("labels", "n_labeled", "n_synthetic"), "Int64") | {"fit_shared": "boolean"})
    keys = ["dataset", "learner", "protocol", "strategy", "seed", "trajectory_id", "round"]
    return frame.sort_values(keys, kind="stable", ignore_index=True)


def load_epochs(path: str | Path | Storage) -> pd.DataFrame:
    """Load what learners reported of their epochs in a sweep's folder (local path or URI): one row per epoch.

    In order of trajectory, round and epoch; empty when no learner reported any. See docs/papers.md for the columns.

    Raises:
        FileNotFoundError: it is not a sweep's folder.
        ray_al.storage.DamagedFile: one of its files cannot be read.
    """
    import pandas as pd

    from ray_al.results.epochs import read_epochs

    tables = read_epochs(_sweep(path))
    return pd.concat([table.to_pandas() for table in tables], ignore_index=True) if tables else pd.DataFrame()


def _sweep(path: str | Path | Storage) -> Storage:
    sweep = path if isinstance(path, Storage) else Storage.open(path)
    if not holds_sweep(sweep):
        raise FileNotFoundError(not_a_sweep(path if isinstance(path, str | Path) else sweep.uri))
    return sweep


def holds_sweep(folder: Storage) -> bool:
    """Whether this is the folder of one sweep, with results or without."""
    return folder.exists("sweep.json") or any(folder.list(part) for part in ("results", "ledger", "epochs"))


def not_a_sweep(path: object) -> str:
    return f"{str(path)!r} is not a sweep's folder (no results in it); give <storage>/<sweep name>"
