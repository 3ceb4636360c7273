"""Write benchmarks/README.md from the JSON files in benchmarks/results; no number in it is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)])


def where(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items() if k != "ray-al")
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB; Python {machine['python']}, {versions}; "
        f"{machine['date']}, load before {machine['load_before']}."
    )


def overhead(result: dict[str, Any]) -> str:
    o, w = result["overhead"], result["two_seconds_of_work"]
    return f"""## What running costs

{where(result["machine"])} `python -m benchmarks.runner_overhead`

{o["trajectories"]} trajectories x {o["rounds"]} rounds of `random` with a learner that does nothing: **{o["trajectories_per_minute"]:.0f} trajectories
a minute** ({o["rounds_per_second"]:.0f} rounds a second, each flushed to disk), {o["driver_cpu_ms_per_round"]:.2f} ms of driver CPU a round,
{o["trial_rss_mb"]:.0f} MB resident and {o["trial_uss_mb"]:.0f} MB private per trial process; {o["seconds"]:.1f} s, {o["whole_process_seconds"]:.1f} s with start-up.

With 2 s of work per trajectory ({w["trajectories"]} trajectories): {w["ray_al_seconds"]:.0f} s against {w["for_loop_seconds"]:.0f} s of the same work in a plain `for` loop,
**{100 * w["ratio"]:.0f}% of its time** ({100 * w["ratio_with_start_up"]:.0f}% with start-up)."""


def mnist(result: dict[str, Any]) -> str:
    ours, peer, compared = result["ours"], result["peer"], result["comparison"]
    rows = []
    for name, row in compared["strategies"].items():
        gap = row["largest_gap_in_standard_errors"]
        measured = peer["strategies"][name]["measured_rounds"]
        rows.append(
            (
                name, f"{row['seconds_ours']:.1f}", f"{row['seconds_peer']:.0f}", f"{measured} of 100", f"{row['ratio']:.1f}x",
                f"{row['mean_ours'][-1]:.3f}", f"{row['mean_peer'][-1]:.3f}",
                "one seed" if gap is None else f"{gap:.1f}",
            )
        )  # fmt: skip
    head = ("strategy", "ray-al s", "scikit-activeml s", "rounds measured", "ratio", "accuracy ray-al", "scikit-activeml", "largest gap, standard errors")  # fmt: skip
    return f"""## The real work: MNIST against scikit-activeml

{where(ours["machine"])} `python -m benchmarks.mnist_against_skactiveml`

5 strategies x 5 seeds x 20 rounds of logistic regression on 60,000 x 784 pixels, equal initial sets, test accuracy in every round. ray-al:
{ours["wall_seconds"]:.1f} s for the whole command on empty storage ({ours["trials_seconds"]:.1f} s of trials). scikit-activeml:
{peer["measured_seconds"]:.0f} s measured, {peer["extrapolated_seconds"]:.0f} s for all of it where BADGE is extrapolated from its measured rounds. **{compared["ratio_wall"]:.0f}x** in all.
Seconds of ours are the strategy's share of the command's wall time. Accuracies are those of the last round that both sides measured.

{table(head, rows)}

scikit-activeml fits with scikit-learn's default tolerance (1e-4); ray-al's fits are converged."""


def kernels(result: dict[str, Any]) -> str:
    cells = {(c["kernel"], c["n"], c["d"], c["b"], c["side"]): c for c in result["cells"]}
    rows = []
    for kernel, n, d, b in dict.fromkeys(key[:4] for key in cells):
        row: list[Any] = [kernel, f"{n:,}", d, b]
        for side in ("ray-al", "numpy", "scikit-activeml"):
            row.append(_seconds(cells.get((kernel, n, d, b, side), {})))
        for side in ("numpy", "scikit-activeml"):
            ratio = cells.get((kernel, n, d, b, side), {}).get("ratio")
            row.append(f"{ratio:.1f}x" if ratio else "")
        row.append(
            " / ".join(_quality(cells.get((kernel, n, d, b, s), {})) for s in ("ray-al", "numpy", "scikit-activeml"))
        )
        rows.append(row)
    head = ("kernel", "N", "d", "b", "ray-al", "numpy", "scikit-activeml", "to numpy", "to scikit-activeml", "quality")
    quality = "; ".join(f"{name}: {what}" for name, what in result["quality"].items())
    return f"""## Kernels against naive numpy and scikit-activeml

{where(result["machine"])} `python -m benchmarks.kernels --limit 30`

Seconds (added peak memory). A figure with ~ is projected from a tenth of the rows and picks, where the whole would take more than 30 s or more
than half of the memory; its quality is of that smaller problem, and left out here. Quality, in the order of the columns: {quality}.

{table(head, rows)}"""


def _seconds(cell: dict[str, Any]) -> str:
    if "skipped" in cell or not cell:
        return f"skipped: {cell['skipped']}" if cell else ""
    if "projected_seconds" in cell:
        return f"~{cell['projected_seconds']:.3g} s"
    return f"{cell['seconds']:.3g} s ({cell['added_mb']:.0f} MB)"


def _quality(cell: dict[str, Any]) -> str:
    return f"{cell['quality']:.4g}" if "quality" in cell and "measured_at" not in cell else "-"


def kills(result: dict[str, Any]) -> str:
    count = ", ".join(f"{part} {n}" for part, n in sorted(result["kills"].items()))
    return f"""## kill -9 at random moments

{where(result["machine"])} `python -m benchmarks.random_kills`

{sum(result["kills"].values())} kills at random moments ({count}); after running the same command again, the results equaled those of an undisturbed run in every
column but timing, host, device and versions."""


SECTIONS = {
    "runner_overhead": overhead,
    "mnist_against_skactiveml": mnist,
    "kernels": kernels,
    "random_kills": kills,
}


def main() -> None:
    parts = [
        "# Benchmarks",
        "`make bench` runs them all; results are JSON in `results/`, and this page is made of them by `python -m benchmarks.summary`.",
    ]
    for name, section in SECTIONS.items():
        path = HERE / "results" / f"{name}.json"
        if path.exists():
            parts.append(section(json.loads(path.read_text())))
    (HERE / "README.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
