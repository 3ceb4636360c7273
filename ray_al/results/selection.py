"""Which rows count: finished rounds, the state of each trajectory, and the label grid that a comparison rests on.

A *cell* is one (dataset, learner, protocol); strategies are compared only within a cell. An *arm* is a strategy in one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pandas as pd

CELL = ["dataset", "learner", "protocol"]
ARM = [*CELL, "strategy"]
FULL = "full"  # all labels at once: an upper bound, not a competitor


def ok_rounds(results: pd.DataFrame) -> pd.DataFrame:
    """The finished rounds, each once, sorted by names, seed and round.

    A trajectory that several sweeps share, or that was read twice, counts once.

    Raises:
        ValueError: two different trajectories have the same names and seed, so pairing by seed is not defined.
    """
    rows = results.loc[results["status"] == "ok"].drop_duplicates(["trajectory_id", "round"])
    rows = rows.astype({"seed": "int64", "round": "int64", "labels": "int64"} | dict.fromkeys(ARM, str))
    rows = rows.sort_values([*ARM, "seed", "round"], kind="stable", ignore_index=True)
    owners = rows.drop_duplicates("trajectory_id")
    clash = owners[owners.duplicated([*ARM, "seed"])]
    if len(clash):
        names = ", ".join(f"{key} {clash.iloc[0][key]}" for key in [*ARM, "seed"])
        raise ValueError(
            f"two trajectories are called {names}; give them labels in the sweep file, or keep one of them"
        )
    return rows


def trajectories(results: pd.DataFrame) -> pd.DataFrame:
    """One row per trajectory: names, seed, trajectory_id, rounds, labels (paid), state, common.

    state: "failed" (its last row says so), "open" (it stopped at a round that others of its cell have passed), or
    "done". common: it is done, is not `full`, and has the cell's common label grid; see `common_grid`.
    """
    last = results.assign(_ok=results["status"] == "ok").sort_values(["trajectory_id", "round", "_ok"], kind="stable")
    last = last.drop_duplicates("trajectory_id", keep="last").set_index("trajectory_id").sort_index()
    last = last.astype(dict.fromkeys(ARM, str))
    grids = ok_rounds(results).groupby("trajectory_id")["labels"].agg(tuple).reindex(last.index)
    grids = grids.map(lambda grid: grid if isinstance(grid, tuple) else ())
    alive = last["status"] == "ok"
    started: set[str] = set()
    common: set[str] = set()
    for _, cell in last[last["strategy"] != FULL].groupby(CELL):
        seen, going = grids[cell.index], grids[cell.index[alive[cell.index]]]
        grid, unfinished = common_grid(going, seen), beginnings(seen)
        started.update(str(name) for name, other in going.items() if other in unfinished)
        common.update(str(name) for name, other in going.items() if other == grid)
    state = pd.Series("done", index=last.index).mask(last.index.isin(list(started)), "open").mask(~alive, "failed")
    return pd.DataFrame(
        {
            **{key: last[key] for key in ARM},
            "seed": last["seed"].astype("int64"),
            "rounds": grids.map(len),
            "labels": grids.map(lambda grid: grid[-1] if grid else 0),
            "state": state,
            "common": last.index.isin(list(common)),
        }
    ).reset_index()


def beginnings(grids: Iterable[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """Every proper prefix of every grid."""
    return {grid[:n] for grid in set(grids) for n in range(len(grid))}


def common_grid(grids: Iterable[tuple[int, ...]], seen: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """The label counts that most of `grids` share, among those that are not the beginning of one in `seen`; () if none.

    A running trajectory is the beginning of a finished one, so it never sets the grid; one that pays odd amounts has a
    grid of its own and does not push out the others. Ties go to the grid with more rounds, then with more labels.
    """
    unfinished = beginnings(seen)
    counts = Counter(grid for grid in grids if grid and grid not in unfinished)
    return max(counts, key=lambda grid: (counts[grid], len(grid), grid), default=())


def share_full(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with the rows of `full` in every cell of their dataset and learner.

    `full` spends no budget round by round, so it runs under a protocol of its own; it bounds all of them. Where nothing
    else ran on its dataset and learner, or it ran under the cell's own protocol, it stays as it is.
    """
    is_full = table["strategy"] == FULL
    full, cells = table[is_full], table.loc[~is_full, CELL].drop_duplicates()
    home = full.merge(cells.assign(home=True), on=CELL, how="left")["home"].notna().to_numpy()
    guests = full[~home].merge(cells, on=["dataset", "learner"], how="left", suffixes=("_own", ""))
    guests["protocol"] = guests["protocol"].fillna(guests["protocol_own"])
    return pd.concat([table[~is_full], full[home], guests[table.columns]], ignore_index=True)


def complete_rounds(results: pd.DataFrame) -> pd.DataFrame:
    """The rounds of trajectories that are done and share their cell's label grid; `full` left out."""
    table = trajectories(results)
    rows = ok_rounds(results)
    return rows[rows["trajectory_id"].isin(table.loc[table["common"], "trajectory_id"])]
