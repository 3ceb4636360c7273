"""The command line: ray-al plan|run|status|results|report|verify|reproduce|features|list."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ray_al.features_command import features
from ray_al.reproduce_command import reproduce
from ray_al.storage import DamagedFile, Storage
from ray_al.sweep_file import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from ray_al.cluster.sweep import Outcome
    from ray_al.experiment import Sweep

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
out = Console()
err = Console(stderr=True)

SweepPath = Annotated[Path, typer.Argument(metavar="SWEEP", help="Sweep file, e.g. sweeps/quickstart.yaml.")]
Folder = Annotated[str, typer.Argument(metavar="DIR", help="A sweep's folder: <storage>/<name>, or its URI.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. axes.seed=50.")]
Smoke = Annotated[bool, typer.Option("--smoke", help="Apply the file's smoke block: a short trial run.")]


def _version(asked: bool) -> None:
    if asked:
        _say(importlib.metadata.version("ray-al"))
        raise typer.Exit


@app.callback()
def command(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Grids of active-learning experiments on Ray."""


@app.command()
def plan(sweep: SweepPath, set: Sets = None, smoke: Smoke = False) -> None:
    """Show the grid: what is done, what is open, which artifacts are missing.

    Starts nothing and writes nothing, but reads the datasets: what `download: true` asks for is fetched, if missing.
    """
    from ray_al.config import load_sweep
    from ray_al.planning import plan_tables

    for part in plan_tables(load_sweep(sweep, set or (), smoke)):
        _show(part)


@app.command()
def run(
    sweep: SweepPath,
    set: Sets = None,
    smoke: Smoke = False,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster, e.g. auto.")] = None,
    cpus: Annotated[int | None, typer.Option(min=1, max=100_000, help="Processors to use locally.")] = None,
    dashboard: Annotated[bool, typer.Option(help="Start Ray's dashboard with a local cluster.")] = True,
) -> None:
    """Run what is not done yet. The same command goes on after any interruption."""
    from ray_al.planning import open_storage, preflight, trajectories

    checked = preflight(sweep, set or (), smoke, cpus, local=address is None)
    folder = open_storage(checked.storage).child(checked.name)
    _say(f"{trajectories(len(checked.trajectories))} in {folder.uri}")
    if folder.local:
        _say(f"TensorBoard: tensorboard --logdir {folder.uri}/tensorboard")

    from ray_al.cluster.head import take_token

    take_token(address)
    from ray_al.cluster.sweep import run_sweep  # starts by importing Ray: not before the file is known to be right

    report = ""

    def write_report() -> None:
        nonlocal report
        report = "not written (stopped)"
        try:
            report = _write_report(folder, checked)
        except (OSError, DamagedFile) as error:
            report = f"not written ({error})"

    outcome = run_sweep(checked, out, address, cpus, dashboard, write_report)
    if not report:  # it was stopped early
        write_report()
    _summary(outcome, checked, folder, report)


def _summary(outcome: Outcome, sweep: Sweep, folder: Storage, report: str) -> None:
    from ray_al.planning import trajectories

    rate = ""
    if outcome.seconds > 0:
        rate = f" in {outcome.seconds:.1f} s (driver {outcome.driver_cpu_seconds:.1f} s CPU)"
    _say(f"{outcome.done} of {trajectories(outcome.total)} done{rate}")
    if any(t.learner.method.share_fits for t in sweep.trajectories):
        from ray_al.results.dataset import fits_saved

        _say(f"fits saved: {fits_saved(folder):,} (first fits that another trajectory had done)")
    _say(f"results: {folder.child('results').uri}   report: {report}")
    if outcome.failed:
        table = Table(title=f"{len(outcome.failed)} failed", title_justify="left")
        table.add_column("trajectory")
        table.add_column("reason", overflow="fold")
        for trajectory, reason in list(outcome.failed.items())[:20]:
            name = sweep.by_id[trajectory].name
            called = f"{name.strategy} · {name.dataset} · {name.learner} · seed {name.seed}"
            table.add_row(escape(called), escape(reason))
        out.print(table)
        out.print("Their rounds so far are kept; the same command tries them again.")
    if outcome.stopped:
        _say("Stopped. Every finished round is on record; the same command goes on from there.")
        raise typer.Exit(130)
    if outcome.failed:
        raise typer.Exit(1)


@app.command()
def status(folder: Folder) -> None:
    """Count what is done, under way and failed in a sweep's folder."""
    from ray_al.planning import status_tables

    for part in status_tables(_folder(folder)):
        _show(part)


@app.command()
def results(folder: Folder) -> None:
    """Print final accuracies and areas under the learning curves."""
    from ray_al.results.table import results_table

    out.print(results_table(_load(_folder(folder))))


@app.command()
def report(folder: Folder) -> None:
    """Write report.html into a sweep's folder: learning curves, areas, labels to an accuracy."""
    _say(_write_report(_folder(folder)))


@app.command()
def verify(
    folder: Folder,
    sample: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many trajectories to run again.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Which ones: seed of the draw.")] = 0,
) -> None:
    """Run finished trajectories again, in this process, and compare ids and metrics with the record."""
    from ray_al.verify import verify_sweep

    _folder(folder)
    differences = verify_sweep(folder, sample, seed, out)
    if differences:
        raise typer.Exit(1)


app.command()(features)
app.command()(reproduce)


@app.command(name="list")
def list_methods() -> None:
    """List strategies, learners, datasets and spaces with their options."""
    from ray_al.listing import listing

    for part in listing():
        out.print(part, highlight=False)


def _folder(path: str) -> Storage:
    from ray_al.planning import open_storage
    from ray_al.results.load import holds_sweep, not_a_sweep

    storage = open_storage(path)
    if not holds_sweep(storage):
        raise ConfigError([not_a_sweep(path)])
    return storage


def _write_report(folder: Storage, sweep: Sweep | None = None) -> str:
    """Write report.html; `sweep` says what was planned, so that a report of a part says that it is one."""
    from ray_al.results.report import write_report
    from ray_al.space_facts import space_facts

    title = folder.root.rsplit("/", 1)[-1]
    meta: dict[str, Any] = {"path": folder.root}
    if folder.exists("sweep.json"):
        meta["config"] = folder.read_json("sweep.json")
        title = str(meta["config"].get("name", title))
    if sweep:
        from ray_al.results.dataset import index

        held = index(folder)
        meta["planned"] = len(sweep.trajectories)
        meta["open"] = sum(t.id not in held.done and t.id not in held.failed for t in sweep.trajectories)
    results = _load(folder)
    folder.write("report.html", write_report(results, title, meta, space_facts(folder, results)).encode())
    return f"{folder.root}/report.html"


def _load(folder: Storage) -> pd.DataFrame:
    from ray_al.results.load import load_results
    from ray_al.results.selection import ok_rounds

    results = load_results(folder)
    try:
        ok_rounds(results)
    except ValueError as clash:  # one label for two experiments, until the run under way sets the older one aside
        raise ConfigError([str(clash)]) from None
    return results


def _show(part: Table | str) -> None:
    _say(part) if isinstance(part, str) else out.print(part, highlight=False)


def _say(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)
