"""What a strategy asks for, and what the oracle answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class PoolQuery:
    """Ask for the labels of pool items, in this order; each costs one annotation."""

    ids: np.ndarray  # (n,) int64 pool ids

    def __post_init__(self) -> None:
        ids = np.asarray(self.ids)
        if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
            raise ValueError(f"PoolQuery takes a vector of integer pool ids, got shape {ids.shape} of {ids.dtype}")
        object.__setattr__(self, "ids", ids.astype(np.int64))

    @property
    def cost(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class SyntheticQuery:
    """Ask for the label of images that are not in the pool; one annotation covers them all (a line of images, say)."""

    images: np.ndarray  # (n, ...) in the pool's image format
    cost: int = 1


@dataclass(frozen=True)
class PseudoLabels:
    """Labels assumed without asking; used in the next fit only, and free."""

    ids: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # (n,) pool ids
    labels: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # (n,)

    def __len__(self) -> int:
        return len(self.ids)


NONE = PseudoLabels()


@dataclass(frozen=True)
class Selection:
    """A strategy's answer for one round: what to ask, what to assume, and what to record of the choice."""

    ask: tuple[PoolQuery | SyntheticQuery, ...]
    assume: PseudoLabels = NONE
    trace: Mapping[str, np.ndarray] = field(default_factory=dict)  # "scores": (n,) of the asked pool ids, in order

    @property
    def cost(self) -> int:
        return sum(query.cost for query in self.ask)

    @property
    def pool_ids(self) -> np.ndarray:
        """(n,) the pool ids asked for, in order."""
        parts = [query.ids for query in self.ask if isinstance(query, PoolQuery)]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)


def ask_pool(ids: np.ndarray, scores: np.ndarray | None = None) -> Selection:
    """The common case: ask for pool items, recording the score that chose each."""
    return Selection((PoolQuery(ids),), trace={} if scores is None else {"scores": np.asarray(scores, np.float64)})


class SelectionError(ValueError):
    """A strategy broke the rules of a selection: repeated, labeled or unknown ids, or a cost over the budget."""


def check_selection(selection: Selection, *, unlabeled: np.ndarray, budget: int, classes: int) -> None:
    """Raise SelectionError unless asked and assumed ids are distinct members of `unlabeled`, none of them both, the
    cost is within `budget`, every assumed id has a label (of 0..classes-1), and scores, if there are any, are one per
    asked id."""
    ids = selection.pool_ids
    if selection.cost > budget:
        raise SelectionError(f"the selection costs {selection.cost} annotations, the round's batch is {budget}")
    _check_ids(ids, unlabeled, "pool id", "asked for")
    if selection.cost == 0 and len(unlabeled):
        raise SelectionError(f"the strategy asked for nothing although {len(unlabeled)} items are unlabeled")
    _check_assumed(selection.assume, ids, unlabeled, classes)
    if "scores" in selection.trace:
        scores = np.shape(selection.trace["scores"])
        if scores != ids.shape:
            raise SelectionError(f"the trace has scores of shape {scores} for {len(ids)} pool ids asked for")


def _check_ids(ids: np.ndarray, unlabeled: np.ndarray, noun: str, verb: str) -> None:
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) != len(ids):
        raise SelectionError(f"{noun} {unique[counts > 1][0]} is {verb} {counts.max()} times in one batch")
    strangers = unique[~np.isin(unique, unlabeled)]
    if len(strangers):
        raise SelectionError(f"{noun} {strangers[0]} is not an unlabeled item (a position taken for a pool id?)")


def _check_assumed(assume: PseudoLabels, asked: np.ndarray, unlabeled: np.ndarray, classes: int) -> None:
    ids, labels = np.asarray(assume.ids), np.asarray(assume.labels)
    if ids.ndim != 1 or ids.shape != labels.shape:
        raise SelectionError(f"assumed ids have shape {ids.shape} and their labels {labels.shape}; each id has one")
    if not ids.size:
        return
    for array, name in ((ids, "ids"), (labels, "labels")):
        if array.dtype.kind not in "iu":
            raise SelectionError(f"assumed {name} are integers, not {array.dtype}")
    _check_ids(ids, unlabeled, "assumed pool id", "given")
    strange = labels[(labels < 0) | (labels >= classes)]
    if len(strange):
        raise SelectionError(
            f"pool id {ids[labels == strange[0]][0]} is assumed to be of class {strange[0]} of {classes}"
        )
    both = np.intersect1d(ids, asked)
    if len(both):
        raise SelectionError(f"pool id {both[0]} is assumed and asked for in the same selection")
