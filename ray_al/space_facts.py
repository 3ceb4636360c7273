"""What the report says of a sweep's spaces, measured on their artifacts: classes in them, and how labeled sets cover.

A run writes `spaces.json` beside its results, so that this needs neither the sweep file nor the datasets.
"""

from __future__ import annotations

import posixpath
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ray_al.data.artifacts import ArtifactStore
from ray_al.data.datasets import Dataset
from ray_al.data.materialize import dataset_name, open_array, space_name
from ray_al.experiment import Sweep, TrajectoryConfig
from ray_al.results.covering import radius_table, sample_rows
from ray_al.results.selection import ARM, FULL, ok_rounds
from ray_al.results.spaces_section import Agreement, Scatter, SpaceFacts
from ray_al.storage import Storage

FILE = "spaces.json"
FEW = 16  # dimensions of a space that is worth a plot; a sweep without one has no such section
POINTS = 1000  # in a scatter plot
STARTS = 10  # of k-means
ROWS, NUMBERS = 20_000, 15_000_000  # that are clustered, at most

Arm = tuple[str, str, str, str]  # dataset, learner, protocol, strategy


def describe_spaces(sweep: Sweep) -> dict[str, Any]:
    """Artifacts by dataset and space, and the space in which each arm selects, as plain JSON."""
    datasets: dict[str, Any] = {}
    arms: dict[Arm, str] = {}
    for t in sweep.trajectories:
        dataset, specs = sweep.datasets[t.dataset], sweep.spaces[t.dataset]
        vectors = [space for space in t.spaces if specs[space].method != "images"]
        entry = datasets.setdefault(
            dataset.label, {"labels": dataset_name(dataset), "classes": _class_names(dataset), "spaces": {}}
        )
        for space in vectors:
            if space not in entry["spaces"]:
                entry["spaces"][space] = space_name(dataset, specs[space], specs)
        if vectors and t.name.strategy != FULL:
            arms[t.name.dataset, t.name.learner, t.name.protocol, t.name.strategy] = _selects_in(t, vectors)
    return {"datasets": datasets, "arms": [[*arm, space] for arm, space in arms.items()]}


def _class_names(dataset: Dataset) -> list[str]:
    chosen = dataset.spec.options.classes or range(dataset.classes)
    return list(dataset.class_names or map(str, chosen))


def _selects_in(t: TrajectoryConfig, vectors: Sequence[str]) -> str:
    """The space that the strategy names, else the one it shares with its learner."""
    own = str(t.strategy.values.get("space"))
    return own if own in vectors else vectors[0]


def space_facts(folder: Storage, results: pd.DataFrame) -> SpaceFacts | None:
    """Measure the spaces of a sweep's folder; None where none has few dimensions, or their artifacts are gone."""
    place, mark, query = folder.uri.partition("?")
    store = ArtifactStore(Storage.open(posixpath.dirname(place) + mark + query))
    try:
        described = folder.read_json(FILE)
        return _measure(described, store, results)
    except OSError:
        return None


def _measure(described: Mapping[str, Any], store: ArtifactStore, results: pd.DataFrame) -> SpaceFacts | None:
    arms: dict[Arm, str] = {tuple(names): space for *names, space in described["arms"]}
    rounds = ok_rounds(results)
    place = pd.MultiIndex.from_frame(rounds[ARM]).map(arms)  # the space in which each round's strategy selects
    scatters, agreements, radii = [], [], []
    for dataset, entry in sorted(described["datasets"].items()):
        spaces = {space: open_array(store.open(name), "pool") for space, name in sorted(entry["spaces"].items())}
        few = [space for space, x in spaces.items() if x.shape[1] <= FEW]
        if not few:
            continue
        labels = np.array(open_array(store.open(entry["labels"]), "pool_labels"))
        scatters += [_scatter(dataset, space, spaces[space], labels, entry["classes"]) for space in few]
        for space, x in spaces.items():
            agreements.append(_agreement(dataset, space, x, labels))
            radii.append(radius_table(rounds[(rounds["dataset"] == dataset) & (place == space)], x, space))
    if not scatters:
        return None
    return SpaceFacts(scatters, agreements, pd.concat(radii, ignore_index=True), STARTS)


def _scatter(dataset: str, space: str, x: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Scatter:
    whole = np.asarray(x, np.float64)
    values, vectors = np.linalg.eigh(np.cov(whole, rowvar=False).reshape(x.shape[1], -1))
    axes = vectors[:, ::-1][:, :2]
    axes = axes * np.where(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])] < 0, -1.0, 1.0)  # of either sign
    rows = sample_rows(len(x), POINTS)
    points = np.zeros((len(rows), 2))
    points[:, : axes.shape[1]] = (whole[rows] - whole.mean(0)) @ axes
    share = values[::-1][:2].sum() / max(values.sum(), np.finfo(float).tiny)
    return Scatter(dataset, space, points, labels[rows], names, float(share))


def _agreement(dataset: str, space: str, x: np.ndarray, labels: np.ndarray) -> Agreement:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import normalized_mutual_info_score

    rows = sample_rows(len(x), min(ROWS, max(1000, NUMBERS // x.shape[1])))
    part, truth = np.asarray(x[rows], np.float32), labels[rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer distinct rows than clusters
        found = [KMeans(len(np.unique(truth)), n_init=1, random_state=seed).fit(part) for seed in range(STARTS)]
    scores = [float(normalized_mutual_info_score(truth, one.labels_)) for one in found]
    best = int(np.argmin([one.inertia_ for one in found]))
    mean, low, high = float(np.mean(scores)), min(scores), max(scores)
    return Agreement(dataset, space, x.shape[1], len(rows), scores[best], mean, low, high)
