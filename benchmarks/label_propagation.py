"""Label propagation: graph, block solve against one scipy.sparse.linalg.cg per class, and jLP against one per pick.

    python -m benchmarks.label_propagation                      # N = 50k and 100k, 10 and 100 classes; jLP at 50k
    python -m benchmarks.label_propagation --rows 50000         # the short half
    python -m benchmarks.label_propagation --quick              # N = 3k: does it run?

On Tiny ImageNet's embeddings (RAY_AL_DATA), by cosine, k = 50. Each cell runs in a process of its own, so that its peak
memory is its own. `residual` is the largest |y - (I - alpha W) z| / |y| of all columns. Results are written after every
cell. jLP's other side solves for delta(labeled + picked) from zero at every pick, as the paper's code does but
converged; it ends after --patience seconds, and its time for all picks is then that of its mean pick times their
number (`extrapolated`). `same_picks`: how many of the picks it made, from the first, are those of the block side.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embeddings import embeddings
from benchmarks.kernels import peak_mb
from benchmarks.machine import machine, write_json

ALPHA, TOL, NEIGHBORS, PER_CLASS, LABELED = 0.99, 1e-6, 50, 10, 100


def build_graph(folder: Path, index: str, count: int, width: int) -> dict[str, float]:
    """The kNN graph by cosine, seconds and peak memory; the exact one goes into `folder`, the others are compared."""
    from ray_al.kernels.neighbors import unit_graph

    x, labels = embeddings(count, width)
    unit_graph(x[:500], 5)  # compiles
    before, started = start_clock()
    ids, far = unit_graph(x, NEIGHBORS, index)
    figures = stop_clock(before, started)
    if index == "flat":
        for name, array in (("ids", ids), ("distances", far), ("labels", labels)):
            np.save(folder / f"{name}.npy", array)
        return figures
    exact = np.load(folder / "ids.npy")
    found = sum(len(np.intersect1d(a, b, assume_unique=True)) for a, b in zip(ids, exact, strict=True))
    return {**figures, "recall": found / exact.size}


def start_clock() -> tuple[float, float]:
    if os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_mb(), time.perf_counter()


def stop_clock(before: float, started: float) -> dict[str, float]:
    seconds = time.perf_counter() - started
    peak = peak_mb()
    return {"seconds": seconds, "peak_mb": peak, "added_mb": peak - before}


def load_weights(folder: Path) -> tuple[Any, np.ndarray, float]:
    """The affinity of the exact graph, the labels, and the seconds that the affinity took."""
    from ray_al.kernels.affinity import affinity

    ids, far, labels = (np.load(folder / f"{name}.npy") for name in ("ids", "distances", "labels"))
    affinity(np.array([[1], [0]]), np.array([[0.5], [0.5]]))  # compiles
    started = time.perf_counter()
    weights = affinity(ids, far)
    return weights, labels, time.perf_counter() - started


def measure(folder: Path, side: str, classes: int, trajectories: int) -> dict[str, Any]:
    """One cell: every trajectory has labels of its own, PER_CLASS of each class."""
    from ray_al.kernels.label_propagation import solve
    from ray_al.kernels.pseudo_labels import label_sources

    weights, labels, made = load_weights(folder)
    labels = labels % classes
    requests = []
    for seed in range(trajectories):
        order = np.random.default_rng(seed).permutation(len(labels))
        picks = np.concatenate([order[labels[order] == c][:PER_CLASS] for c in range(classes)])
        requests.append(label_sources(picks, labels[picks], classes, ALPHA, TOL))
    if side == "scipy":
        work = scipy_side(weights, requests)
    elif side == "one by one":
        work = lambda: [solve(weights, [request])[0] for request in requests]  # noqa: E731
    else:
        work = lambda: solve(weights, requests)  # noqa: E731
    solve(weights, [label_sources(picks[:1], picks[:1] * 0, 1, ALPHA, iterations=1)])  # compiles
    before, started = start_clock()
    found = work()
    figures = stop_clock(before, started)
    residual = max(largest_residual(weights, request, z) for request, z in zip(requests[:2], found[:2], strict=True))
    return {**figures, "seconds_affinity": made, "edges": len(weights.values), "residual": residual}


def sparse(weights: Any) -> Any:
    """I - alpha W, float64."""
    from scipy.sparse import csr_matrix, identity

    count = weights.count
    w = csr_matrix((weights.values.astype(np.float64), weights.columns, weights.starts), shape=(count, count))
    return (identity(count) - ALPHA * w).tocsr()


def scipy_side(weights: Any, requests: Any) -> Any:
    from scipy.sparse.linalg import cg

    system = sparse(weights)

    def work() -> list[np.ndarray]:
        found = []
        for request in requests:
            z = np.empty((weights.count, request.count), np.float32)
            for column in range(request.count):
                y = np.zeros(weights.count)
                own = request.columns == column
                y[request.nodes[own]] = request.values[own]
                z[:, column] = cg(system, y, rtol=TOL, atol=0.0)[0]
            found.append(z)
        return found

    return work


def largest_residual(weights: Any, request: Any, z: np.ndarray) -> float:
    y = np.zeros(z.shape)
    y[request.nodes, request.columns] = request.values
    left = y - sparse(weights) @ z.astype(np.float64)
    return float((np.linalg.norm(left, axis=0) / np.linalg.norm(y, axis=0)).max())


def measure_jlp(folder: Path, batch: int, patience: float) -> dict[str, Any]:
    """jLP of `batch` picks after LABELED random labels: blocks of columns, and one solve per pick from zero."""
    from ray_al.kernels import jlp, panel

    weights, _, _ = load_weights(folder)
    order = np.random.default_rng(0).permutation(weights.count)
    labeled, allowed = order[:LABELED], np.sort(order[LABELED:])
    jlp.pick(weights, labeled, allowed, 2, 0)  # compiles
    solved: list[int] = []
    whole = panel.solve_columns

    def counted(weights: Any, y: np.ndarray, *rest: Any) -> None:
        solved.append(y.shape[1])
        whole(weights, y, *rest)

    panel.solve_columns = counted
    before, started = start_clock()
    picks, _ = jlp.pick(weights, labeled, allowed, batch, 0)
    figures: dict[str, Any] = {"blocks": stop_clock(before, started), "columns": sum(solved), "solves": len(solved)}
    for tol in (TOL, jlp.TOL):
        before, started = start_clock()
        found = one_solve_per_pick(weights, labeled, allowed, batch, tol, patience)
        side = stop_clock(before, started)
        side["picks"] = len(found)
        side["extrapolated"] = side["seconds"] * batch / len(found)
        apart = np.flatnonzero(found != picks[: len(found)])
        side["same_picks"] = int(apart[0]) if len(apart) else len(found)
        side["ratio"] = side["extrapolated"] / figures["blocks"]["seconds"]
        figures[f"one per pick, {tol:g}"] = side
    return figures


def one_solve_per_pick(
    weights: Any, labeled: np.ndarray, allowed: np.ndarray, batch: int, tol: float, patience: float
) -> np.ndarray:
    """The picks made in `patience` seconds by the definition, each from a scipy solve from zero."""
    from scipy.sparse.linalg import cg

    system, delta = sparse(weights), np.zeros(weights.count)
    delta[labeled] = 1
    closed = np.full(weights.count, np.inf)
    closed[allowed] = 0
    picks, started = [], time.perf_counter()
    while len(picks) < batch and (not picks or time.perf_counter() - started < patience):
        g = cg(system, delta, rtol=tol, atol=0.0)[0]
        picks.append(int((g + closed).argmin()))
        delta[picks[-1]], closed[picks[-1]] = 1, np.inf
    return np.array(picks)


def in_subprocess(*cell: Any) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.label_propagation", "--cell", json.dumps(cell)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"skipped": f"exit code {done.returncode}: {(done.stderr.strip().splitlines() or [''])[-1]}"}
    return json.loads(done.stdout.splitlines()[-1])


def run_cell(what: str, folder: str, *rest: Any) -> dict[str, Any]:
    work = {"graph": build_graph, "jlp": measure_jlp}.get(what)
    return work(Path(folder), *rest) if work else measure(Path(folder), what, *rest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 100_000])
    parser.add_argument("--width", type=int, default=64, help="principal components, at most 256")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds for one solve per pick")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "label_propagation.json")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        print(json.dumps(run_cell(*json.loads(args.cell))))
        return
    embeddings(1, 1)  # says at once when there are none
    settings = {"alpha": ALPHA, "tol": TOL, "k": NEIGHBORS, "labels_per_class": PER_CLASS, "width": args.width}
    result: dict[str, Any] = {"machine": machine(), "settings": settings, "graphs": [], "solves": [], "jlp": []}
    for count in [3000] if args.quick else args.rows:
        with tempfile.TemporaryDirectory() as folder:
            for part, cell in cells_of(folder, count, args):
                result[part].append(cell)
                print(json.dumps(cell), flush=True)
                write_json(args.out, result, show=False)


def cells_of(folder: str, count: int, args: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """All measurements of one number of rows, exact graph first."""
    for index in ("flat", "hnsw", "ivf"):
        yield "graphs", {"n": count, "index": index, **in_subprocess("graph", folder, index, count, args.width)}
    for classes in (10, 100):
        yield from (("solves", cell) for cell in compare(folder, count, classes))
    if count <= 50_000:
        for batch in (10, 30) if args.quick else (100, 1000):
            yield "jlp", {"n": count, "batch": batch, **in_subprocess("jlp", folder, batch, args.patience)}


def compare(folder: str, count: int, classes: int) -> Iterator[dict[str, Any]]:
    """The sides of one graph and number of classes; `ratio`: seconds per trajectory over those of one alone."""
    first = None
    for side, trajectories in (("fused", 1), ("scipy", 1), ("fused", 16), ("one by one", 16)):
        cell = {"n": count, "classes": classes, "side": side, "trajectories": trajectories}
        cell |= in_subprocess(side, folder, classes, trajectories)
        if "seconds" in cell:
            cell["seconds_per_trajectory"] = cell["seconds"] / trajectories
            first = first or cell["seconds_per_trajectory"]
            cell["ratio"] = cell["seconds_per_trajectory"] / first
        yield cell


if __name__ == "__main__":
    main()
