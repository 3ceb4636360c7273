"""What `benchmarks.gpu` measures, section by section."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from ray_al.kernels.device.euclidean import DeviceEuclidean
from ray_al.kernels.device.kcenter import KCenterRequest, kcenter_greedy
from ray_al.kernels.device.kmeanspp import BadgeRequest
from ray_al.kernels.device.pool import DevicePool
from ray_al.kernels.device.scores import Head, score_all, upload

NO_IDS = np.empty(0, np.int64)


class Bench:
    """The device, the sizes, and how seconds are taken."""

    def __init__(self, device: str, scale: float, width: int, limit: float) -> None:
        self.device, self.scale, self.width, self.limit = torch.device(device), scale, width, limit
        self.on_gpu = self.device.type == "cuda"
        self.bandwidth = float("nan")  # bytes a second, measured
        self.triton_error: str | None = None

    def rows(self, full: int) -> int:
        return max(200, round(full * self.scale))

    def classes(self, full: int) -> int:
        return full if self.scale >= 0.1 else min(full, 30)

    def sync(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], Any], repeats: int = 5, warm: int = 2) -> float:
        """Median wall time of `work`, all it started on the device included."""
        for _ in range(warm):
            work()
        times = []
        for _ in range(repeats):
            self.sync()
            started = time.perf_counter()
            work()
            self.sync()
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    def features(self, count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """(N, width) float16 rows about their class's center, and labels (N,); made on the device."""
        draw = torch.Generator(self.device).manual_seed(seed)
        # Centers do not depend on the seed, so that a test set has those of its pool.
        fixed = torch.Generator(self.device).manual_seed(12345)
        centers = 0.25 * torch.randn((classes, self.width), generator=fixed, device=self.device)
        x, y = np.empty((count, self.width), np.float16), np.empty(count, np.int64)
        for start in range(0, count, 1 << 18):
            stop = min(start + (1 << 18), count)
            label = torch.randint(classes, (stop - start,), generator=draw, device=self.device)
            noise = torch.randn((stop - start, self.width), generator=draw, device=self.device)
            x[start:stop] = (centers[label] + noise).half().cpu().numpy()
            y[start:stop] = label.cpu().numpy()
        return x, y

    def pool(self, x: np.ndarray, backend: str | None = None) -> DevicePool:
        return DevicePool(x, device=self.device, backend=backend or self.backends[0])

    @cached_property
    def backends(self) -> list[str]:
        """Those of linear scores that work here, the default first."""
        if self.on_gpu:
            try:
                pool = DevicePool(np.ones((200, self.width), np.float16), device=self.device, backend="triton")
                pool.top(random_heads(self, 5, 10), "entropy", 1, [NO_IDS] * 5, range(5))
            except Exception as error:
                self.triton_error = f"{type(error).__name__}: {error}"
            else:
                return ["triton", "torch"]
        return ["torch"]


def random_heads(bench: Bench, count: int, classes: int, seed: int = 0) -> list[Head]:
    rng = np.random.default_rng(seed)
    shape = (count, classes, bench.width)
    weights = (0.05 * rng.standard_normal(shape)).astype(np.float32)
    return [Head(w, 0.1 * rng.standard_normal(classes).astype(np.float32)) for w in weights]


def bandwidth(bench: Bench) -> dict[str, Any]:
    """What the memory gives: a large copy (bytes read and written) and a large sum (bytes read)."""
    count = (1 << 31) if bench.on_gpu else (1 << 22)
    x, y = torch.ones(count, device=bench.device), torch.empty(count, device=bench.device)
    copy = 8 * count / bench.seconds(lambda: y.copy_(x), 10)
    read = 4 * count / bench.seconds(lambda: x.sum(), 10)
    bench.bandwidth = max(copy, read)
    return {"copy_tb_s": copy / 1e12, "read_tb_s": read / 1e12, "bytes": 4 * count}


def checks(bench: Bench) -> dict[str, Any]:
    """Is what is timed below right on this device? Against float64, and fused against alone."""
    x, y = bench.features(20_000 if bench.on_gpu else 2_000, 50)
    double = torch.from_numpy(x).double()
    found: dict[str, Any] = {}
    for backend in bench.backends:
        for kind in (np.float16, np.float32):
            pool = bench.pool(x.astype(kind), backend)
            for classes in (10, 1000):
                heads = random_heads(bench, 7, classes)
                z = double @ torch.from_numpy(heads[3].weights).double().T + torch.from_numpy(heads[3].bias).double()
                truth = torch.special.entr(z.softmax(1)).sum(1)
                together = score_all(pool.rows, upload(pool.rows, heads), "entropy", backend)[3]
                alone = score_all(pool.rows, upload(pool.rows, heads[3:4]), "entropy", backend)[0]
                name = f"entropy {backend} {np.dtype(kind).name} {classes} classes"
                found[name] = {
                    "largest_error": float((together.cpu().double() - truth).abs().max()),
                    "fused_bits_equal": torch.equal(together, alone),
                }
    pool = bench.pool(x)
    k = 300
    requests = [KCenterRequest(k, np.arange(50), NO_IDS, seed) for seed in range(3)]
    picks = pool.kcenter(requests)
    on_device = double.to(bench.device)
    best = torch.cdist(on_device, on_device[:50]).amin(1)
    agreed = 0.0
    for pick in picks[0][0].tolist():
        agreed = max(agreed, float(1 - best[pick] / best.max()))
        best = torch.minimum(best, (on_device - on_device[pick]).square().sum(1).sqrt())
    found["kcenter"] = {
        "largest_gap_to_farthest": agreed,
        "fused_bits_equal": _equal(picks[1], pool.kcenter(requests[1:2])[0]),
    }
    asks = [BadgeRequest(head, 100, NO_IDS, seed) for seed, head in enumerate(random_heads(bench, 2, 20))]
    found["badge"] = {"repeats": _equal(pool.badge(asks)[1], pool.badge(asks[1:])[0])}
    problems = [(np.arange(part, len(x), 7), y[part::7]) for part in range(7)]
    heads = pool.fit(problems, 50)
    alone = pool.fit(problems[2:3], 50)[0]
    rows = double[2::7]
    weights = torch.from_numpy(heads[2].weights).double()
    pull = (rows @ weights.T + torch.from_numpy(heads[2].bias)).softmax(1) - torch.eye(50)[torch.from_numpy(y[2::7])]
    gradient = float((pull.T @ rows + weights).norm() / (rows.norm() * len(rows) ** 0.5))
    found["fit"] = {"relative_gradient": gradient, "fused_bits_equal": _equal(heads[2], alone)}
    return found


def _equal(one: tuple[np.ndarray, ...], other: tuple[np.ndarray, ...]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def scores(bench: Bench) -> list[dict[str, Any]]:
    """Entropy and the best 1000 of every head, fused: 10 M x 512 with 10 classes, 1.28 M with 1000."""
    found = []
    for full, classes, counts in ((10_000_000, 10, (1, 4, 16)), (1_280_000, 1000, (1, 4))):
        x, _ = bench.features(bench.rows(full), bench.classes(classes))
        for backend in bench.backends:
            started = time.perf_counter()
            pool = bench.pool(x, backend)
            bench.sync()
            upload_gb_s = x.nbytes / (time.perf_counter() - started) / 1e9
            found += [_scores(bench, pool, bench.classes(classes), count, upload_gb_s) for count in counts]
    return found


def _scores(bench: Bench, pool: DevicePool, classes: int, count: int, upload_gb_s: float) -> dict[str, Any]:
    heads, x = random_heads(bench, count, classes), pool.rows.x
    on_device = upload(pool.rows, heads)
    k = min(1000, len(x) // 2)
    product = bench.seconds(lambda: score_all(pool.rows, on_device, "entropy", pool.backend))
    whole = bench.seconds(lambda: pool.top(heads, "entropy", k, [NO_IDS] * count, range(count)))
    size = x.numel() * x.element_size()
    return {
        "rows": len(x), "classes": classes, "heads": count, "backend": pool.backend, "k": k, "upload_gb_s": upload_gb_s,
        "scores_seconds": product, "scores_share_of_bandwidth": size / product / bench.bandwidth,
        "top_seconds": whole, "top_share_of_bandwidth": size / whole / bench.bandwidth,
        "scores_teraflops": 2 * x.numel() * classes * count / product / 1e12,
    }  # fmt: skip


class Counted(DeviceEuclidean):
    passes = 0

    def cover(self, states: Any) -> None:
        self.passes += 1
        super().cover(states)


def kcenter(bench: Bench) -> list[dict[str, Any]]:
    """50,000 picks of 1.28 M x 512 from 1000 centers; then four trajectories of 12,500 picks in lock step."""
    x, _ = bench.features(bench.rows(1_280_000), bench.classes(1000))
    pool = bench.pool(x)
    found = []
    for trajectories, full in ((1, 5_000), (1, 50_000), (4, 12_500)):
        k = min(len(x) // 8, max(20, round(full * bench.scale)))
        starts = [
            np.random.default_rng(t).choice(len(x), min(1000, len(x) // 8), replace=False) for t in range(trajectories)
        ]
        requests = [KCenterRequest(k, centers, NO_IDS, turn) for turn, centers in enumerate(starts)]
        space = Counted(pool.rows)
        seconds = bench.seconds(partial(kcenter_greedy, space, requests), 1, 0)
        found.append(
            {"rows": len(x), "trajectories": trajectories, "picks": k, "seconds": seconds, "passes": space.passes}
        )
    return found


def badge(bench: Bench) -> list[dict[str, Any]]:
    """1000 picks with probabilities of a random head."""
    found = []
    for full, of_full in ((1_280_000, 1000), (10_000_000, 10)):
        classes = bench.classes(of_full)
        x, _ = bench.features(bench.rows(full), classes)
        pool = bench.pool(x)
        request = BadgeRequest(random_heads(bench, 1, classes)[0], min(1000, len(x) // 8), NO_IDS, 0)
        seconds = bench.seconds(partial(pool.badge, [request]), 1, 1)
        found.append({"rows": len(x), "classes": classes, "picks": request.k, "seconds": seconds})
    return found


def fits(bench: Bench) -> list[dict[str, Any]]:
    """Linear heads of several trajectories as one call, and one by one."""
    found = []
    for labels, of_full, count in ((1_000, 10, 16), (10_000, 100, 16), (50_000, 1000, 2)):
        classes, n = bench.classes(of_full), max(20, round(labels * min(1.0, 10 * bench.scale)))
        x, y = bench.features(2 * n, classes)
        pool = bench.pool(x)
        rng = np.random.default_rng(0)
        problems = [(ids := rng.permutation(len(x))[:n], y[ids]) for _ in range(count)]
        together = bench.seconds(partial(pool.fit, problems, classes), 1, 1)
        alone = sum(bench.seconds(partial(pool.fit, [problem], classes), 1, 0) for problem in problems)
        found.append(
            {"labels": n, "classes": classes, "problems": count, "seconds": together, "one_by_one_seconds": alone}
        )
    return found


def trajectories(bench: Bench) -> dict[str, Any]:
    """Whole linear-probe trajectories: 10 rounds of fit, test accuracy and selection, 12,800 labels each, to 10%."""
    classes = bench.classes(1000)
    x, y = bench.features(bench.rows(1_280_000), classes)
    test_x, test_y = bench.features(bench.rows(50_000), classes, seed=1)
    pool, test = bench.pool(x), bench.pool(test_x)
    batch, rounds = max(20, round(12_800 * bench.scale)), 10
    names = ("entropy", "margin", "kcenter", "badge")
    strategies = {}
    for seed, name in enumerate(names):
        records: list[dict[str, float]] = []
        labeled = np.random.default_rng(seed).permutation(len(x))[:batch]
        started = time.perf_counter()
        while len(records) < rounds and time.perf_counter() - started < bench.limit / len(names):
            marks = [time.perf_counter()]
            (head,) = pool.fit([(labeled, y[labeled])], classes)
            marks.append(time.perf_counter())
            accuracy = float((test.probs(head).argmax(1) == test_y).mean())
            marks.append(time.perf_counter())
            picks = _select(pool, name, head, batch, labeled, seed)
            marks.append(time.perf_counter())
            parts = dict(zip(("fit", "test", "select"), np.diff(marks).tolist(), strict=True))
            records.append({"labels": len(labeled), "accuracy": accuracy, **parts})
            labeled = np.concatenate([labeled, picks])
        spent, last, done = time.perf_counter() - started, records[-1], len(records)
        # Rounds not reached: a fit costs in proportion to its labels, all else what it cost last.
        missing = [last["fit"] * (turn + 1) / done + last["test"] + last["select"] for turn in range(done, rounds)]
        strategies[name] = {"seconds": spent, "extrapolated_seconds": sum(missing), "measured": records}
    total = sum(s["seconds"] + s["extrapolated_seconds"] for s in strategies.values())
    return {
        "rows": len(x), "classes": classes, "rounds": rounds, "batch": batch, "strategies": strategies,
        "trajectories_per_hour": 3600 * len(names) / total,
        "extrapolated": any(s["extrapolated_seconds"] > 0 for s in strategies.values()),
    }  # fmt: skip


def _select(pool: DevicePool, name: str, head: Any, batch: int, labeled: np.ndarray, seed: int) -> np.ndarray:
    if name == "kcenter":
        return pool.kcenter([KCenterRequest(batch, labeled, NO_IDS, seed)])[0][0]
    if name == "badge":
        return pool.badge([BadgeRequest(Head(*head), batch, labeled, seed)])[0][0]
    return pool.top([head], name, batch, [labeled], [seed])[0][0]


SECTIONS: dict[str, Callable[[Bench], Any]] = {
    "bandwidth": bandwidth, "checks": checks, "scores": scores, "kcenter": kcenter, "fits": fits,
    "trajectories": trajectories, "badge": badge,
}  # fmt: skip
