"""What `benchmarks.rethinking_gpu` does: data in pieces, a check, timings, DeepCluster, one training of one cycle."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ray_al.core.seeds import stream, subseed
from ray_al.kernels.device import propagation
from ray_al.learners.convnet13.deepcluster import Clustering, deepcluster
from ray_al.learners.convnet13.features import apply
from ray_al.learners.convnet13.images import Images, Moments, moments_of
from ray_al.learners.convnet13.network import ConvNet13, make_network, put_body
from ray_al.learners.convnet13.propagation import Propagation
from ray_al.learners.convnet13.training import Fit, Schedule, Semi, semi_supervised, supervised
from ray_al.learners.networks import repeatable

SETTINGS = ("base", "PRE+SEMI")
SPLITS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True)
class Settings:
    """The lengths and options of all trainings; everything else is the paper's."""

    epochs: int
    sup_epochs: int
    pre_epochs: int
    batch: int
    strategy: str
    precision: str

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Data:
    images: np.ndarray  # (N, 32, 32, 3) uint8
    labels: np.ndarray  # (N,) int64
    test_images: np.ndarray
    test_labels: np.ndarray

    @cached_property
    def classes(self) -> int:
        return int(self.labels.max()) + 1


def load(path: Path, limit: int | None = None) -> Data:
    """A file, or the pieces of a folder in the order of their names; `limit` takes the first items of both splits."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: give a file with {', '.join(SPLITS)}, or a folder of its pieces")
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in SPLITS}
    for file in files:
        with np.load(file, allow_pickle=False) as held:
            for name in SPLITS:
                if name in held.files:
                    parts[name].append(held[name])
    if missing := [name for name in SPLITS if not parts[name]]:
        raise FileNotFoundError(f"{path} holds no {', '.join(missing)}")
    whole = [np.concatenate(parts[name])[:limit] for name in SPLITS]
    return Data(whole[0], whole[1].astype(np.int64), whole[2], whole[3].astype(np.int64))


def split_file(file: Path, folder: Path, mib: float) -> list[Path]:
    """Write the splits of a file as compressed pieces, each of at most so many MiB before compression."""
    data = load(file)
    folder.mkdir(parents=True, exist_ok=True)
    splits = {"train": (data.images, data.labels), "test": (data.test_images, data.test_labels)}
    rows, made = int(mib * 2**20 // data.images[0].nbytes), []
    for split, (images, labels) in splits.items():
        for start in range(0, len(images), rows):
            stop = start + rows
            part = {f"{split}_images": images[start:stop], f"{split}_labels": labels[start:stop].astype(np.uint8)}
            made.append(folder / f"{split}-{start:07d}.npz")
            np.savez_compressed(made[-1], **part)
    return made


@dataclass
class Bench:
    data: Data
    settings: Settings
    device: torch.device
    width: int

    def device_name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(self.device)

    @cached_property
    def precision(self) -> torch.dtype:
        wanted = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(self.settings.precision)
        on_gpu = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        return wanted or (torch.bfloat16 if on_gpu else torch.float32)

    @cached_property
    def moments(self) -> Moments:
        return moments_of(self.data.images)

    @cached_property
    def pool(self) -> Images:
        return Images(self.data.images, self.moments, self.device)

    def check(self) -> dict[str, float]:
        """Label propagation on the device against a dense solve in float64 on the CPU, at 2,000 rows."""
        rows = np.random.default_rng(0).standard_normal((2000, 32)).astype(np.float32)
        x = torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        found = propagation.affinity(*propagation.nearest(x.to(self.device), 20))
        ids, labels = torch.arange(100), torch.arange(100) % 10
        y = propagation.sources(ids, labels, 2000, 10)
        z = propagation.solve(found, y.to(self.device), 0.99, 1e-10, 400).cpu()
        exact = propagation.affinity(*propagation.nearest(x.double(), 20))
        dense = exact.times(torch.eye(2000, dtype=torch.float64))
        truth = torch.linalg.solve(torch.eye(2000, dtype=torch.float64) - 0.99 * dense, y)
        error = float((z - truth).abs().max() / truth.abs().max())
        assert error < 1e-3, f"the device's solution is {error:.1e} away"
        return {"relative_error": error}

    def timing(self, epochs: int) -> dict[str, Any]:
        """Seconds of SEMI epochs at random weights (the work is the same at any), the first of which prepares."""
        ids = self.first_ids(0)
        fit = self._fit(ids, stream(0, "init-weights"), None)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        with repeatable(1):
            supervised(fit, Schedule(2, 0.02, None), 32)
            semi_supervised(fit, Schedule(epochs, 0.02, None), self._semi(), len(self.data.images), self.data.classes)
        rows = [row for row in fit.history if row["stage"] == "semi"]
        names = ("seconds", "feature_seconds", "graph_seconds", "solve_seconds")
        found: dict[str, Any] = {name: float(np.median([row[name] for row in rows[1:]])) for name in names}
        found |= {"first": rows[0]["seconds"], "steps": rows[0]["steps"], "sup_epoch": fit.history[1]["seconds"]}
        if self.device.type == "cuda":
            found["peak_gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        return found

    def expected(self, timing: Mapping[str, Any]) -> dict[str, float]:
        """Seconds that DeepCluster and the longest training of each setting may take, with room to spare."""
        chosen, epoch = self.settings, timing["seconds"]
        step = (epoch - timing["feature_seconds"]) / timing["steps"]
        cycles = chosen.sup_epochs * (5 * chosen.batch // 32) * step + 10
        passes = len(self.data.images) // 128 * step + timing["feature_seconds"] + 1
        return {
            "base": cycles,
            "PRE+SEMI": cycles + 1.1 * chosen.epochs * epoch,
            "pre": 1.1 * chosen.pre_epochs * passes,
        }

    def pretrain(self, save: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
        epochs: list[dict[str, Any]] = []
        how = Clustering(5 * self.data.classes, self.width, self.settings.pre_epochs, precision=self.precision)
        with repeatable(1):
            body = deepcluster(self.pool, how, stream(0, "init-weights", -1), epochs.append)
        np.savez(save, **{name: value.numpy() for name, value in body.items()})
        return body, epochs

    def body_of(self, file: Path) -> dict[str, torch.Tensor]:
        with np.load(file, allow_pickle=False) as held:
            return {name: torch.from_numpy(held[name]) for name in held.files}

    def plan(self, seeds: int, cycles: int) -> Iterator[tuple[str, str, int, int, str]]:
        """(name, setting, seed, cycle, strategy) of every training, the lower cycles first."""
        for cycle in range(cycles):
            for seed in range(seeds):
                for setting in SETTINGS:
                    for strategy in ("random", self.settings.strategy) if cycle else ("all",):
                        yield f"{setting}/{seed}/{strategy}/{cycle}", setting, seed, cycle, strategy

    def first_ids(self, seed: int) -> np.ndarray:
        """A balanced set of as many labels as a cycle has."""
        rng, labels = stream(seed, "initial"), self.data.labels
        each = self.settings.batch // self.data.classes
        return np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:each] for c in range(self.data.classes)])

    def labeled(self, cells: Mapping[str, Any], setting: str, seed: int, cycle: int, strategy: str) -> np.ndarray:
        """All labeled ids of a cycle: the first ones, and what the models of the cycles before asked for."""
        names = [f"{setting}/{seed}/{strategy if c else 'all'}/{c}" for c in range(cycle)]
        return np.concatenate([self.first_ids(seed), *(np.array(cells[name]["picks"][strategy]) for name in names)])

    def cell(
        self, ids: np.ndarray, setting: str, seed: int, cycle: int, body: dict[str, torch.Tensor]
    ) -> dict[str, Any]:
        """Train once; the test accuracy, what the last epoch reported, and what each strategy would ask for next."""
        started, chosen = time.perf_counter(), self.settings
        fit = self._fit(ids, stream(seed, "init-weights", cycle), body if setting == "PRE+SEMI" else None)
        with repeatable(1):
            supervised(fit, Schedule(chosen.sup_epochs, 0.2, None), 32)
            if setting == "PRE+SEMI":
                pool, classes = len(self.data.images), self.data.classes
                semi_supervised(fit, Schedule(chosen.epochs, 0.2, None), self._semi(), pool, classes, self._audit)
            fit.net.eval()
            test = apply(fit.net, Images(self.data.test_images, self.moments, self.device))[0]
            picks = self._picks(fit.net, ids, seed, cycle)
        right = float((test.argmax(1) == self.data.test_labels).mean())
        spent = time.perf_counter() - started
        return {"accuracy": right, "labels": len(ids), "seconds": spent, "last": fit.history[-1], "picks": picks}

    def _picks(self, net: ConvNet13, ids: np.ndarray, seed: int, cycle: int) -> dict[str, list[int]]:
        free = np.setdiff1d(np.arange(len(self.data.images)), ids)
        probs, embedding = apply(net, self.pool)
        found = {"random": stream(seed, "select", cycle).permutation(free)[: self.settings.batch]}
        if self.settings.strategy == "entropy":
            entropy = -(probs[free] * np.log(np.maximum(probs[free], 1e-12))).sum(1)
            found["entropy"] = free[np.argsort(-entropy, kind="stable")[: self.settings.batch]]
        else:
            found["kcenter_greedy"] = _kcenter(
                torch.from_numpy(embedding.copy()).to(self.device), ids, len(found["random"])
            )
        return {name: values.tolist() for name, values in found.items()}

    def _audit(self, ids: np.ndarray, guesses: np.ndarray) -> float:
        return float((self.data.labels[ids] == guesses).mean())

    def _semi(self) -> Semi:
        return Semi(128, 50, "with_replacement", False, True, Propagation(k=min(50, len(self.data.images) - 1)))

    def _fit(self, ids: np.ndarray, rng: np.random.Generator, body: dict[str, torch.Tensor] | None) -> Fit:
        init, order, shifts, noise = (np.random.default_rng(subseed(rng)) for _ in range(4))
        net = make_network(self.data.classes, self.width, self.precision, init)
        if body is not None:
            put_body(net, body)
        net.to(self.device).noise = torch.Generator(self.device).manual_seed(subseed(noise))
        return Fit(net, self.pool, ids, self.data.labels[ids], order, shifts)


def _kcenter(x: torch.Tensor, ids: np.ndarray, count: int) -> np.ndarray:
    """Greedy k-center among rows of length 1: the next pick is the farthest from all labeled and picked ones."""
    picks: list[int] = []
    cosine = (x @ x[torch.from_numpy(ids).to(x.device)].T).amax(1)
    for _ in range(count):
        picks.append(int(cosine.argmin()))
        cosine = torch.maximum(cosine, x @ x[picks[-1]])
        cosine[picks[-1]] = torch.inf
    return np.array(picks)
