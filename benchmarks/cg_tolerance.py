"""What stopping conjugate gradients early changes of pseudo-labels: a table for docs/sweeps.md.

    python -m benchmarks.cg_tolerance             # N = 50k, 10 and 100 classes
    python -m benchmarks.cg_tolerance --quick     # N = 3k: does it run?

On Tiny ImageNet's embeddings (RAY_AL_DATA), k = 50, alpha = 0.99, ten labels per class drawn at random. Every stop is
compared with a residual of 1e-10: the share of pseudo-labels that differ, and how far the certainties are off. Classes
are the true ones modulo 10 or 100.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embeddings import embeddings
from benchmarks.machine import machine, write_json

ALPHA, NEIGHBORS, PER_CLASS, EXACT = 0.99, 50, 10, 1e-10
STOPS: list[tuple[str, float, int | None]] = [
    *((f"{count} iterations", EXACT, count) for count in (5, 10, 20, 40)),
    *((f"residual {tol:g}", tol, None) for tol in (1e-2, 1e-3, 1e-4, 1e-6, 1e-8)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--width", type=int, default=64, help="principal components, at most 256")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cg_tolerance.json")
    args = parser.parse_args()
    count = 3000 if args.quick else 50_000
    rows = list(compare(count, args.width))
    settings = {"n": count, "k": NEIGHBORS, "alpha": ALPHA, "labels_per_class": PER_CLASS, "width": args.width}
    write_json(args.out, {"machine": machine(), "settings": settings, "rows": rows}, show=False)
    print(table(rows))


def compare(count: int, width: int) -> Iterator[dict[str, Any]]:
    from ray_al.kernels.affinity import GRAPHS, affinity
    from ray_al.kernels.label_propagation import solve
    from ray_al.kernels.neighbors import unit_graph
    from ray_al.kernels.pseudo_labels import label_sources, pseudo_labels

    x, truth = embeddings(count, width)
    near = unit_graph(x, NEIGHBORS)
    for graph in GRAPHS:
        weights = affinity(*near, graph=graph)
        for classes in (10, 100):
            labels, order = truth % classes, np.random.default_rng(0).permutation(count)
            ids = np.concatenate([order[labels[order] == c][:PER_CLASS] for c in range(classes)])
            others = np.setdiff1d(np.arange(count), ids)

            def guess(tol: float, stop: int | None) -> tuple[np.ndarray, np.ndarray]:
                request = label_sources(ids, labels[ids], classes, ALPHA, tol, stop)  # noqa: B023
                found, sure = pseudo_labels(solve(weights, [request])[0], ids, labels[ids])  # noqa: B023
                return found[others], sure[others]  # noqa: B023

            exact, certainty = guess(EXACT, None)
            for name, tol, stop in STOPS:
                found, sure = guess(tol, stop)
                off = np.abs(sure - certainty)
                yield {
                    "graph": graph,
                    "classes": classes,
                    "stop": name,
                    "labels_changed": float((found != exact).mean()),
                    "certainty_off_mean": float(off.mean() / certainty.mean()),
                    "certainty_off_most": float(off.max()),
                }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| graph | classes | stop | labels changed | certainty off, mean | at most |", "|" + "---|" * 6]
    for row in rows:
        shares = [f"{row[key]:.2%}" for key in ("labels_changed", "certainty_off_mean")]
        cells = [row["graph"], str(row["classes"]), row["stop"], *shares, f"{row['certainty_off_most']:.1e}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
