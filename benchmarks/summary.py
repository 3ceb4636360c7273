"""Write benchmarks/README.md from the JSON files in benchmarks/results; no number in it is typed by hand."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import summary_scale as scale
from benchmarks.grid import AT_ONCE, ROUGH
from benchmarks.kernels import SHORT
from benchmarks.summary_scale import table, where

HERE = Path(__file__).parent
INTRODUCTION = """Results are JSON in `results/`, and this page is made of them by `python -m benchmarks.summary`. `make bench` runs all of them but these, which
are run by themselves:

- `python -m benchmarks.node_kills` needs root, for network namespaces.
- `python -m benchmarks.large_pool --rows 16000000 --width 50 --dtype float32`; `make bench` runs the other large pool, of 10 million rows.
- `python -m benchmarks.gpu` and `python -m benchmarks.rethinking_gpu` need a GPU.

Those on real data read the folder that `RAY_AL_DATA` names, in [the format of any dataset](../docs/data.md), and are skipped where the variable is not set: `mnist.npz`
(mnist_against_skactiveml, svc, vae), `cifar10.npz` (features), `cifar10_effnetlite0_pca256.npz` (grid, fits, trial_memory) and `tinyimagenet_effnetlite0_pca256.npz`
(grid, fits, large_pool, neighbors, candidates, label_propagation, cg_tolerance). The last two are embeddings of EfficientNet-Lite0 in 256 principal components, float16. These files are
not in the repository, and no script in it makes them: `ray-al features ... --backbone benchmarks.efficientnet_lite0:pretrained` and a PCA give embeddings
of that kind, but other numbers."""


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
        for side in ("ray-al", "16 at once", "numpy", "scikit-activeml"):
            row.append(_seconds(cells.get((kernel, n, d, b, side), {})))
        for side in ("numpy", "scikit-activeml"):
            ratio = cells.get((kernel, n, d, b, side), {}).get("ratio")
            row.append(f"{ratio:.1f}x" if ratio else "")
        row.append(
            " / ".join(_quality(cells.get((kernel, n, d, b, s), {})) for s in ("ray-al", "numpy", "scikit-activeml"))
        )
        equal = cells.get((kernel, n, d, b, "numpy"), {}).get("equal_picks")
        row.append("" if equal is None else f"{equal} of {b}")
        rows.append(row)
    head = (
        "kernel",
        "N",
        "d",
        "b",
        "ray-al",
        "16 at once",
        "numpy",
        "scikit-activeml",
        "to numpy",
        "to scikit-activeml",
        "quality",
        "picks equal to numpy's",
    )
    quality = "; ".join(f"{name}: {what}" for name, what in result["quality"].items())
    return f"""## Kernels against plain numpy and scikit-activeml

{where(result["machine"])} `python -m benchmarks.kernels`

Seconds (added peak memory) of a first call in a fresh process; below two seconds the median of five processes, or one where marked *. All sides of a row are of one run, the rows of several. "numpy" is the algorithm written with care: distances by norms and one product a pick, BADGE factorized. "16 at once" is ray-al for as
many trajectories through one pool scorer, in seconds of one. A figure with ~ is projected from a tenth of the rows and picks, where the whole would take
too long (--limit), and may be off by several times: BADGE's of numpy over a million rows of 512 was 29 s, and is 5.6 s measured. Its quality is of that smaller problem, and left out here. Quality, in the order of the columns: {quality}. BADGE's
and TypiClust's are those of one random draw a side, and vary with its seed (BADGE's by about 1%). Where a few of k-center's picks differ,
it is by the rounding of numpy's float32 distances between rows that are almost equally far; ray-al's are exact.

The aim at 100,000 x 512 was 8x numpy and 50x scikit-activeml, and is reached. With 100 picks, k-center's second ratio is of first calls of a tenth of a second, and depends on
the machine's hour: 62.8x here, 60.7x in an earlier run; after long load, when fresh memory was three times slower, this code took 0.17 s (no peer ran beside it), and code a step
before it, which took as long, was 47x scikit-activeml.

{table(head, rows)}"""


def _seconds(cell: dict[str, Any]) -> str:
    if "skipped" in cell or not cell:
        return f"skipped: {cell['skipped']}" if cell else ""
    if "projected_seconds" in cell:
        return f"~{cell['projected_seconds']:.3g} s"
    once = "*" if cell["seconds"] < SHORT and "all_seconds" not in cell else ""
    return f"{cell['seconds']:.3g} s{once} ({cell['added_mb']:.0f} MB)"


def _quality(cell: dict[str, Any]) -> str:
    return f"{cell['quality']:.4g}" if "quality" in cell and "measured_at" not in cell else "-"


def kills(result: dict[str, Any]) -> str:
    count = ", ".join(f"{part} {n}" for part, n in sorted(result["kills"].items()))
    return f"""## kill -9 at random moments

{where(result["machine"])} `python -m benchmarks.random_kills`

{sum(result["kills"].values())} kills at random moments ({count}); after running the same command again, the results equaled those of an undisturbed run in every
column but timing, host, device and versions."""


def grid(result: dict[str, Any]) -> str:
    names = {
        "ours": "`ray-al run`",
        "rough": f"`ray-al run`, tol {ROUGH:g}",
        "usual": "scikit-learn and numpy",
        "converged": "the same, fits converged",
        "own": "ray-al without Ray",
        "one process": "its arithmetic alone, one process",
    }
    rows, notes, measured = [], [], []
    for name, entry in result["grids"].items():
        measured.append(f"{name}: {where(entry['machine'])}")
        for side in (side for side in names if side in entry["sides"]):
            found = entry["sides"][side]
            compared = {run: entry["comparison"].get(run, {}).get(side, {}) for run in ("ours", "rough")}
            ratios = [of.get("trajectories_per_hour") for of in compared.values()]
            mark = "~" if found["extrapolated"] else ""
            each = "".join(f" {seconds:.0f}" for seconds in found.get("wall_seconds_each", ()))
            rows.append(
                (
                    name, names[side] + " †" * found.get("apart", False), f"{found['wall_seconds']:.0f}{each and f' ({each[1:]})'}",
                    f"{mark}{found['trajectories_per_hour']:.0f}",
                    *(f"{mark}{ratio:.1f}x" if ratio else "" for ratio in ratios), found["at_once"],
                    f"{found['machine_peak_mb']:.0f}", f"{found['private_mb_a_trajectory']:.0f}", _largest_gap(compared["ours"] or compared["rough"]),
                )
            )  # fmt: skip
        size = entry["grid"]
        notes.append(
            f"{name}: {size['batch']} labels at first and {size['batch']} more a round, {size['classes']} classes"
        )
    size = next(iter(result["grids"].values()))["grid"]
    head = ("features", "side", "wall s", "trajectories/h", "ray-al run to it", "with rough fits", "at once", "machine MB", "MB a trajectory", "largest gap, standard errors")  # fmt: skip
    return f"""## A whole grid against independent processes

{" ".join(measured)} `python -m benchmarks.grid`

{len(size["strategies"])} strategies x {size["seeds"]} seeds x {size["rounds"]} rounds of logistic regression on real image embeddings ({"; ".join(notes)}).
`ray-al run` is the whole command on empty storage, its trajectories {AT_ONCE} at a time in one trial, before and after the other sides: the machine's
speed drifts, and the mean counts. The next sides run one process per trajectory, as many at a time as there are cores.
scikit-learn's fits end by default well before the minimum, which ray-al's reach ([measured](#fits-of-logistic-regression)). So there are two comparisons of equal work:
`ray-al run` with "fits converged", in float64 to the tolerance (1e-7) at which predictions are ray-al's; and "with rough fits", `ray-al run` with the option `tol: {ROUGH:g}` of `logreg`,
whose fits are still somewhat nearer the minimum than scikit-learn's, with scikit-learn's default. The last side, where it was measured, is the same kernels in threads of one process without Ray, ledgers, start or report: `ray-al run` cannot be faster than that.
† By a command of its own, later than `ray-al run`. A figure with ~ is extrapolated from the rounds that were measured within the cap. MB: peak of the whole machine over its state before, and
private memory of the processes of trajectories by how many ran at once. Gap: the largest of all strategies and rounds between mean accuracies, in standard
errors, which are rough ones of two or three seeds where a side was cut short.

The aim was 10x with 10 classes, 4x with 200, and a tenth of the memory of a trajectory, against the same work. All three are reached, the first narrowly: beside the
arithmetic stand Ray's start and processes, and the machine drifts. Four runs (2026-11-30 and 12-01) gave 11.9x, 10.5x, 11.2x and 11.2x with converged fits on both sides, 10.0x,
10.5x, 10.6x and 11.1x with rough ones on both, and 9.7x, 9.9x, 10.0x and 10.3x where scikit-learn's were rougher than ray-al's. One more is left out: the first run after an installation
also compiles its kernels, once, and took 43 s beside 30 s the next time.

{table(head, rows)}"""


def _largest_gap(compared: dict[str, Any]) -> str:
    found = {s: row["largest_gap_in_standard_errors"] for s, row in compared.get("curves", {}).items()}
    known = {s: gap for s, gap in found.items() if gap is not None}
    worst = max(known, key=lambda s: known[s], default=None)
    return "" if worst is None else f"{known[worst]:.1f} ({worst})"


def trial_memory(result: dict[str, Any]) -> str:
    rows = [
        (
            c["trajectories"], c["trial_processes"], f"{c['trial_private_mb']:.0f}", f"{c['trial_private_mb_a_trajectory']:.1f}",
            f"{c['machine_mb_peak'] / 1024:.1f}", f"{c['rounds_per_second']:.1f}", " to ".join(map(str, c["rounds_fewest_and_most"])),
        )
        for c in result["cells"]
    ]  # fmt: skip
    head = (
        "trajectories at once",
        "trial processes",
        "their private MB",
        "a trajectory",
        "machine GiB",
        "rounds/s",
        "rounds each meanwhile",
    )
    grown = {name: f"{mb:.3g} MB" for name, mb in result["machine_mb_per_extra_trajectory"].items()}
    return f"""## Memory of a further trajectory

{where(result["machine"])} `python -m benchmarks.trial_memory`

Logistic regression with entropy on the CIFAR-10 features. With each further trajectory the machine's peak grows by **{grown.get("shared", "-")}**
where trajectories share two trial processes, and by {grown.get("alone", "-")} where each has its own (`together: 1`).

{table(head, rows)}"""


def scheduler_scale(result: dict[str, Any]) -> str:
    s = result["seconds"]
    rows = [
        (f"{p['trajectories']:,}", f"{p['per_minute']:.0f}", f"{p['driver_private_mb']:.0f}")
        for p in result["portions"]
    ]
    shared = result.get("learner", "trivial") != "trivial"
    title, options = (", sharing trials", f" --learner {result['learner']}") if shared else ("", "")
    does = f"`{result['learner']}` on digits" if shared else "a learner that does nothing, a trial each"
    return f"""## {result["trajectories"]:,} trajectories in one sweep{title}

{where(result["machine"])} `python -m benchmarks.scheduler_scale{options}`

{result["rounds"]} rounds each of `random` with {does}: **{result["trajectories_per_minute"]:.0f} trajectories a minute**, the last portion at
**{100 * result["last_portion_to_first"]:.0f}%** of the first one's pace; the driver has {result["driver_private_mb_peak"]:.0f} MB of its own at its peak, the whole machine used {result["machine_mb_peak"] / 1024:.1f} GiB.
First trajectory done after {s["to_first_trajectory"]:.0f} s; compaction and report {s["compaction_and_report"]:.0f} s; afterwards `plan` {s["plan_after"]:.1f} s, `status` {s["status_after"]:.1f} s,
`results` {s["results_after"]:.1f} s, `report` {s["report_after"]:.1f} s, and `run` with nothing left to do {s["run_again_with_nothing_to_do"]:.1f} s. {result["result_files"]} result files, {result["result_mb"]:.1f} MB.

{table(("trajectories done", "a minute", "driver MB"), rows)}"""


SECTIONS = {
    "runner_overhead": overhead,
    "mnist_against_skactiveml": mnist,
    "kernels": kernels,
    "random_kills": kills,
    "grid": grid,
    "trial_memory": trial_memory,
    "scheduler_scale": scheduler_scale,
    "scheduler_scale_logreg": scheduler_scale,
    "fused": scale.fused,
    "large_pool_10000000x512_float16": scale.large_pool,
    "large_pool_16000000x50_float32": scale.large_pool,
    "node_kills": scale.node_kills,
    **{name: partial(scale.listing, title, name) for name, title in scale.LISTINGS.items()},
}


def main() -> None:
    parts = [
        "# Benchmarks",
        INTRODUCTION,
    ]
    for name, section in SECTIONS.items():
        path = HERE / "results" / f"{name}.json"
        if path.exists():
            parts.append(section(json.loads(path.read_text())))
    (HERE / "README.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
