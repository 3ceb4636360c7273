"""What a sweep would do, what its folder holds, and whether this machine can run it. Needs no Ray."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from ray_al.assemble import distinct_learners, preparation_of
from ray_al.cluster.resources import demand, node_faults, this_machine
from ray_al.config import parse_sweep
from ray_al.data.artifacts import ArtifactStore
from ray_al.data.materialize import dataset_config, has_space, space_name
from ray_al.data.preparations import prepared_config
from ray_al.experiment import Sweep
from ray_al.results.dataset import LedgerIndex, index
from ray_al.results.ledger import read_or_skip
from ray_al.storage import Storage
from ray_al.sweep_file import ConfigError, ResourcesSection, read_sweep_file

STATES = ("done", "elsewhere", "partly", "failed", "open")


def plan_tables(sweep: Sweep) -> Iterator[Table | str]:
    """The grid by dataset, learner, protocol and strategy; then the artifacts."""
    storage = open_storage(sweep.storage)
    held = index(storage.child(sweep.name))
    others = [storage.child(name) for name in storage.list() if name != sweep.name]
    elsewhere = frozenset[str]().union(*(index(other, read_or_skip).done for other in others))
    groups: dict[tuple[str, str, str], dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for t in sweep.trajectories:
        count = groups[t.name.dataset, t.name.learner, t.name.protocol][t.name.strategy]
        state = _state(t.id, held, elsewhere)
        count[state] += 1
        count["rounds"] += 0 if state in ("done", "elsewhere") else t.protocol.rounds - held.rounds.get(t.id, 0)
    for key, strategies in groups.items():
        yield _plan_table(escape(" · ".join(key)), strategies)
    yield _artifacts(sweep, ArtifactStore(storage))
    total = Counter(_state(t.id, held, elsewhere) for t in sweep.trajectories)
    yield f"{sweep.name}: {trajectories(len(sweep.trajectories))}: " + ", ".join(f"{n} {s}" for s, n in total.items())


def trajectories(count: int) -> str:
    return f"{count} trajectory" if count == 1 else f"{count} trajectories"


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
        table.add_row(escape(strategy), *(str(count[state] or "") for state in states), str(count["rounds"]))
    return table


def _artifacts(sweep: Sweep, store: ArtifactStore) -> Table:
    table = Table(title="artifacts", title_justify="left", box=SIMPLE)
    for column in ("dataset", "what", "state"):
        table.add_column(column)
    for position, (dataset, spaces) in enumerate(zip(sweep.datasets, sweep.spaces, strict=True)):
        used = sorted({s for t in sweep.trajectories if t.dataset == position for s in t.spaces})
        there = {"labels": store.has("dataset", dataset_config(dataset))}
        there |= {space: has_space(store, dataset, spaces[space], spaces) for space in used}
        for learner in distinct_learners(t for t in sweep.trajectories if t.dataset == position):
            if need := preparation_of(dataset.classes, learner):
                rows = space_name(dataset, spaces[need.space], spaces)
                there[f"{need.kind} of {learner.label}"] = store.has(need.kind, prepared_config(need, rows))
        for what, found in there.items():
            table.add_row(escape(dataset.label), escape(what), "there" if found else "missing: will be built")
    return table


def status_tables(folder: Storage) -> Iterator[Table | str]:
    """Trajectories by strategy and state, from what the folder holds; shared fits; then the reasons of failures."""
    from ray_al.results.dataset import read_sweep

    held = index(folder)
    columns = ("trajectory_id", "strategy", "status", "error", "fit_shared")
    rows = read_sweep(folder).select(columns).to_pylist()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    failed = {row["trajectory_id"]: row["error"] for row in rows if row["status"] == "failed"}
    for trajectory, strategy in {row["trajectory_id"]: row["strategy"] for row in rows}.items():
        counts[strategy]["done" if trajectory in held.done else "failed" if trajectory in failed else "partly"] += 1
    for row in rows:
        counts[row["strategy"]]["rounds"] += row["status"] == "ok"
    reasons = Counter(failed.values())
    table = Table(title=escape(folder.root), title_justify="left", box=SIMPLE)
    table.add_column("strategy", overflow="fold")
    for column in ("done", "partly", "failed", "rounds on record"):
        table.add_column(column, justify="right")
    for strategy in sorted(counts):
        table.add_row(
            escape(strategy), *(str(counts[strategy][key] or "") for key in ("done", "partly", "failed", "rounds"))
        )
    yield table
    if saved := sum(bool(row["fit_shared"]) for row in rows):
        yield f"fits saved: {saved:,} (first fits that another trajectory had done)"
    if reasons:
        why = Table(title="failures", title_justify="left", box=SIMPLE)
        why.add_column("times", justify="right")
        why.add_column("reason", overflow="fold")
        for reason, times in reasons.most_common(20):
            why.add_row(str(times), escape(reason))
        yield why


def preflight(path: Path, sets: Sequence[str], smoke: bool, cpus: int | None, local: bool) -> Sweep:
    """Read and check a sweep that is to run: the file, its storage and, for a `local` run, this machine.

    Raises:
        ConfigError: with the faults of all three.
    """
    raw = read_sweep_file(path, sets, smoke)
    faults = _storage_faults(raw.get("storage", "runs"), str(raw.get("name")))
    faults += _machine_faults(raw.get("resources"), cpus) if local else []
    try:
        sweep = parse_sweep(raw)
    except ConfigError as error:
        raise ConfigError([*error.faults, *faults]) from None
    if faults:
        raise ConfigError(faults)
    if local:
        demand(sweep.resources, sweep.trajectories, [this_machine(cpus)])
    return sweep


def _machine_faults(section: object, cpus: int | None) -> list[str]:
    try:
        return node_faults(ResourcesSection.model_validate(section or {}), [this_machine(cpus)])
    except ValidationError:
        return []  # reported as a fault of the file


def _storage_faults(uri: object, name: str) -> list[str]:
    """Why the storage cannot be written; nothing is left there."""
    if not isinstance(uri, str):
        return []
    try:
        storage = open_storage(uri)
    except ConfigError as error:
        return list(error.faults)
    try:
        if storage.local is None:
            return [] if storage.has_bucket() else [f"storage: {uri!r} names a bucket that does not exist"]
        place = storage.local / name
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir():
            raise NotADirectoryError(f"{place} is not a folder")
        with tempfile.TemporaryFile(dir=place):
            return []
    except OSError as error:
        verb = "read" if storage.local is None else "write to"
        return [f"storage: cannot {verb} {uri!r}: {error.strerror or error}"]


def open_storage(uri: str) -> Storage:
    """Open a storage that a user named. Raises ConfigError for one of an unknown kind."""
    try:
        return Storage.open(uri)
    except ValueError as error:
        raise ConfigError([f"storage: {error}"]) from None
