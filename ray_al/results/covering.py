"""The covering radius of labeled sets: what core-set selection minimizes (Sener & Savarese 2018, equation 4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

RADIUS = "covering radius"  # the column, and what plots call it
WORK = 1e11  # multiplications for the radii of one space: a few seconds
PAIR = 60  # multiplications that finding the nearest of a pair's centers is worth
NUMBERS = 50_000_000  # of the pool's rows that are held: 200 MB
_BLOCK = 4096  # items whose distances are in memory at once


@dataclass(frozen=True, eq=False)
class Run:
    """The labeled sets of one trajectory."""

    protocol: str
    strategy: str
    learner: str
    seed: int
    labels: tuple[int, ...]  # paid
    sets: tuple[np.ndarray, ...]  # pool ids


def radius_table(rounds: pd.DataFrame, x: np.ndarray, space: str) -> pd.DataFrame:
    """Covering radii in one space, as results whose learner is the space and whose metric is `RADIUS`.

    Learners that a strategy does not listen to leave it the same picks: these count once. Where all radii would be too
    much work, only those of the first seeds are measured, and in a large pool the distances of a sample of its items.

    Args:
        rounds: of strategies that select in this space, on one dataset.
        x: (N, d) rows of the pool in it.
    """
    at = sample_rows(len(x), max(1000, NUMBERS // x.shape[1]))
    runs = _distinct([_run(rows) for _, rows in rounds.groupby("trajectory_id", sort=True)])
    work = sum(len(at) * sum(map(len, run.sets)) * (x.shape[1] + PAIR) for run in runs)
    seeds = sorted({run.seed for run in runs})
    seeds = seeds[: max(1, int(len(seeds) * WORK / max(work, WORK)))]
    found = []
    for run in runs:
        if run.seed in seeds:
            names = {"learner": space, "protocol": run.protocol, "strategy": run.strategy, "seed": run.seed}
            names |= {"trajectory_id": "/".join(map(str, names.values())), "status": "ok"}
            radii = covering_radii(x, run.sets, at)
            found += [
                {**names, "round": i, "labels": labels, RADIUS: radius}
                for i, (labels, radius) in enumerate(zip(run.labels, radii, strict=True))
            ]
    dataset = rounds["dataset"].iloc[0] if len(rounds) else ""
    return pd.DataFrame(found).assign(dataset=dataset)


def sample_rows(count: int, most: int) -> np.ndarray:
    """(m,) of `count` rows, ascending: all, or `most` drawn at random, the same every time."""
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def _run(rows: pd.DataFrame) -> Run:
    first = rows.iloc[0]
    sets = labeled_sets(rows["asked_ids"].tolist(), rows["n_labeled"].tolist())
    labels = tuple(rows["labels"].tolist())
    return Run(first["protocol"], first["strategy"], first["learner"], int(first["seed"]), labels, tuple(sets))


def _distinct(runs: Sequence[Run]) -> list[Run]:
    """Of each strategy one learner's runs, if all have the same picks; else all, the learner's name with theirs."""
    groups: dict[tuple[str, str], dict[str, dict[int, Run]]] = {}
    for run in runs:
        groups.setdefault((run.protocol, run.strategy), {}).setdefault(run.learner, {})[run.seed] = run
    found = []
    for learners in groups.values():
        first, *others = (learners[name] for name in sorted(learners))
        if all(_same(first, other) for other in others):
            found += list(first.values())
        else:
            for own in learners.values():
                found += [replace(run, strategy=f"{run.strategy}, {run.learner}") for run in own.values()]
    return found


def _same(a: Mapping[int, Run], b: Mapping[int, Run]) -> bool:
    """Whether the runs of two learners have equal picks, as far as both have got."""
    return all(
        np.array_equal(mine, theirs)
        for seed in a.keys() & b.keys()
        for mine, theirs in zip(a[seed].sets, b[seed].sets, strict=False)
    )


def labeled_sets(asked: Sequence[np.ndarray], sizes: Sequence[int]) -> list[np.ndarray]:
    """The labeled pool ids of every round, from what was asked in it and how many pool items its model learned from.

    Rounds that add to a set have all ids asked so far; rounds that are draws of their own have only the last ones.
    """
    everything = np.concatenate([np.asarray(ids, np.int64) for ids in asked])
    ends = np.cumsum([len(ids) for ids in asked])
    return [everything[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def covering_radii(x: np.ndarray, sets: Sequence[np.ndarray], at: np.ndarray) -> Iterator[float]:
    """For each set of pool ids, the largest Euclidean distance from an item of `at` (pool ids) to its nearest of it.

    Args:
        x: (N, d) rows of the pool.

    Raises:
        ValueError: a set is empty.
    """
    points = np.asarray(x[at], np.float32)
    shift = points.mean(0)
    points = points - shift
    norms = np.einsum("ij,ij->i", points, points)
    before = np.empty(0, np.int64)
    nearest = np.full(len(at), np.inf, np.float32)  # squared
    for ids in sets:
        if not len(ids):
            raise ValueError("an empty set covers nothing: its radius is not defined")
        if not np.array_equal(ids[: len(before)], before):  # not the last set and more
            before = before[:0]
            nearest = np.full(len(at), np.inf, np.float32)
        fresh = ids[len(before) :]
        if len(fresh):
            _approach(points, norms, np.asarray(x[fresh], np.float32) - shift, nearest)
            nearest[np.isin(at, fresh)] = 0.0  # exactly, whatever the rounding
        before = ids
        yield float(np.sqrt(nearest.max()))


def _approach(points: np.ndarray, norms: np.ndarray, centers: np.ndarray, nearest: np.ndarray) -> None:
    """Lower `nearest` (n,) to the squared distances from points (n, d) to the nearest of centers (m, d), in place."""
    half = np.einsum("ij,ij->i", centers, centers) / 2
    centers = np.concatenate([centers, -half[:, None]], axis=1)
    for start in range(0, len(points), _BLOCK):
        block = slice(start, start + _BLOCK)
        ones = np.ones((len(points[block]), 1), np.float32)
        best = (np.concatenate([points[block], ones], axis=1) @ centers.T).max(1)  # the larger, the nearer
        np.minimum(nearest[block], np.maximum(norms[block] - 2 * best, 0), out=nearest[block])
