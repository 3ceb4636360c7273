"""What a sweep would do, what its folder holds, and whether this machine can run it. Needs no Ray."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

from ray_al.cluster.resources import demand, this_machine
from ray_al.data.artifacts import ArtifactStore
from ray_al.data.materialize import dataset_config, has_space
from ray_al.experiment import Sweep
from ray_al.results.dataset import LedgerIndex, index
from ray_al.storage import Storage
from ray_al.sweep_file import ConfigError

STATES = ("done", "elsewhere", "partly", "failed", "open")


def plan_tables(sweep: Sweep) -> Iterator[Table | str]:
    """The grid by dataset, learner, protocol and strategy; then the artifacts."""
    storage = Storage.open(sweep.storage)
    held = index(storage.child(sweep.name))
    elsewhere = frozenset[str]().union(*(index(storage.child(o)).done for o in storage.list() if o != sweep.name))
    groups: dict[tuple[str, str, str], dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for t in sweep.trajectories:
        count = groups[t.name.dataset, t.name.learner, t.name.protocol][t.name.strategy]
        state = _state(t.id, held, elsewhere)
        count[state] += 1
        count["rounds"] += 0 if state in ("done", "elsewhere") else t.protocol.rounds - held.rounds.get(t.id, 0)
    for key, strategies in groups.items():
        yield _plan_table(" · ".join(key), strategies)
    yield _artifacts(sweep, ArtifactStore(storage))
    total = Counter(_state(t.id, held, elsewhere) for t in sweep.trajectories)
    yield f"{sweep.name}: {len(sweep.trajectories)} trajectories: " + ", ".join(f"{n} {s}" for s, n in total.items())


def _state(trajectory: str, held: LedgerIndex, elsewhere: frozenset[str]) -> str:
    if trajectory in held.done:
        return "done"
    if trajectory in elsewhere:
        return "elsewhere"  # another sweep of this storage has it: it is taken over, not run
    if trajectory in held.failed:
        return "failed"
    return "partly" if held.rounds.get(trajectory) else "open"


def _plan_table(title: str, strategies: Mapping[str, Counter[str]]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE)
    table.add_column("strategy", overflow="fold")
    states = [s for s in STATES if any(count[s] for count in strategies.values())]
    for column in [*states, "rounds to run"]:
        table.add_column(column, justify="right")
    for strategy, count in strategies.items():
        table.add_row(strategy, *(str(count[state] or "") for state in states), str(count["rounds"]))
    return table


def _artifacts(sweep: Sweep, store: ArtifactStore) -> Table:
    table = Table(title="artifacts", title_justify="left", box=SIMPLE)
    for column in ("dataset", "what", "state"):
        table.add_column(column)
    for position, (dataset, spaces) in enumerate(zip(sweep.datasets, sweep.spaces, strict=True)):
        used = sorted({s for t in sweep.trajectories if t.dataset == position for s in t.spaces})
        there = {"labels": store.has("dataset", dataset_config(dataset))}
        there |= {space: has_space(store, dataset, spaces[space], spaces) for space in used}
        for what, found in there.items():
            table.add_row(dataset.label, what, "there" if found else "missing: will be built")
    return table


def status_tables(folder: Storage) -> Iterator[Table]:
    """Trajectories by strategy and state, from what the folder holds; then the reasons of failures."""
    from ray_al.results.dataset import read_sweep

    held = index(folder)
    rows = read_sweep(folder).select(["trajectory_id", "strategy", "round", "status", "error"]).to_pylist()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: Counter[str] = Counter()
    strategies = {row["trajectory_id"]: row["strategy"] for row in rows}
    failed = {row["trajectory_id"]: row["error"] for row in rows if row["status"] == "failed"}
    for trajectory, strategy in strategies.items():
        counts[strategy]["done" if trajectory in held.done else "failed" if trajectory in failed else "partly"] += 1
        counts[strategy]["rounds"] += sum(row["trajectory_id"] == trajectory and row["status"] == "ok" for row in rows)
    reasons.update(failed.values())
    table = Table(title=folder.root, title_justify="left", box=SIMPLE)
    table.add_column("strategy", overflow="fold")
    for column in ("done", "partly", "failed", "rounds on record"):
        table.add_column(column, justify="right")
    for strategy in sorted(counts):
        table.add_row(strategy, *(str(counts[strategy][key] or "") for key in ("done", "partly", "failed", "rounds")))
    yield table
    if reasons:
        why = Table(title="failures", title_justify="left", box=SIMPLE)
        why.add_column("times", justify="right")
        why.add_column("reason", overflow="fold")
        for reason, times in reasons.most_common(20):
            why.add_row(str(times), reason)
        yield why


def check_local(sweep: Sweep, cpus: int | None) -> None:
    """Raise ConfigError when this machine lacks what one trial asks for."""
    demand(sweep.resources, sweep.trajectories, this_machine(cpus))


def check_storage(sweep: Sweep) -> None:
    """Raise ConfigError when the storage cannot be written, leaving nothing there."""
    try:
        local = Storage.open(sweep.storage).local
    except ValueError as error:
        raise ConfigError([f"storage: {error}"]) from None
    if local is None:
        return
    place = local / sweep.name
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        if not place.is_dir():
            raise NotADirectoryError(f"{place} is not a folder")
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise ConfigError(
            [f"storage: cannot write to {str(Path(sweep.storage))!r}: {error.strerror or error}"]
        ) from None
