"""Results of sweeps in a storage, as claims ask for them: rounds of arms, their settings, facts of their spaces."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from ray_al.reproduction.claims import Arm, NotRun, sweep_file
from ray_al.reproduction.settings import settings_of
from ray_al.results.load import load_epochs, load_results
from ray_al.results.selection import ok_rounds, trajectories
from ray_al.storage import Storage
from ray_al.sweep_file import ConfigError

if TYPE_CHECKING:
    from ray_al.results.spaces_section import SpaceFacts


@dataclass(frozen=True, eq=False)
class Run:
    """The folder of one sweep that has results."""

    folder: Storage
    name: str
    raw: Mapping[str, Any]  # the sweep file, as it was run
    results: pd.DataFrame
    told: Callable[[str], None]

    @cached_property
    def rounds(self) -> pd.DataFrame:
        return ok_rounds(self.results)

    @cached_property
    def _arms(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        groups = self.rounds.groupby(["dataset", "learner", "strategy"])
        return {(str(dataset), str(learner), str(strategy)): rows for (dataset, learner, strategy), rows in groups}

    @cached_property
    def epochs(self) -> pd.DataFrame:
        return load_epochs(self.folder)

    @cached_property
    def facts(self) -> SpaceFacts | None:
        from ray_al.space_facts import space_facts

        self.told(f"measuring the spaces of {self.name}")
        return space_facts(self.folder, self.results)

    def of(self, arm: Arm) -> pd.DataFrame:
        """The finished rounds of an arm."""
        if arm.dataset:
            return self._arms.get((arm.dataset, arm.learner, arm.strategy), self.rounds[:0])
        found = [rows for key, rows in self._arms.items() if key[1:] == (arm.learner, arm.strategy)]
        return found[0] if len(found) == 1 else pd.concat([self.rounds[:0], *found])

    def has(self, arm: Arm) -> bool:
        return not self.of(arm).empty

    def summary(self) -> str:
        """How many trajectories there are, what became of them, and where they ran."""
        states = trajectories(self.results)["state"].value_counts()
        others = [f"{states[state]:,} {state}" for state in ("open", "failed") if state in states]
        devices = sorted(set(self.rounds["device"].dropna()) - {""})
        return ", ".join([f"{states.sum():,} trajectories", *others, *devices])

    @cached_property
    def _settings(self) -> dict[Arm, dict[str, Any]]:
        return {}

    def settings(self, arm: Arm) -> dict[str, Any]:
        if arm not in self._settings:
            self._settings[arm] = settings_of(self.raw, self.name, arm)
        return self._settings[arm]


class Records:
    """A storage. Nothing is read before it is asked for; `told` hears what takes a while."""

    def __init__(
        self,
        storage: Storage,
        version: str,
        commands: Mapping[str, str] | None = None,
        told: Callable[[str], None] = lambda doing: None,
    ) -> None:
        self._storage, self._version, self._commands, self._told = storage, version, commands or {}, told
        self._names = storage.list()
        self._found: dict[str, tuple[Run, ...]] = {}
        self._curves: dict[Arm, pd.DataFrame] = {}

    def command(self, sweep: str, *sets: str) -> str:
        """What makes the results of a sweep."""
        known = self._commands.get(sweep)
        return known or " ".join([f"ray-al run {sweep_file(sweep)}", *(f"--set {text}" for text in sets)])

    def runs(self, sweep: str) -> tuple[Run, ...]:
        """The runs of a sweep and its repeats that have finished rounds, in order; () if none.

        Raises:
            ConfigError: results of another version, or that cannot be read.
        """
        if sweep not in self._found:
            own = re.compile(re.escape(sweep) + r"(-\d{1,2})?")  # no more digits: cifar10-100 is a sweep of its own
            names = sorted((name for name in self._names if own.fullmatch(name)), key=lambda name: (len(name), name))
            self._found[sweep] = tuple(run for name in names if (run := self._read(name)))
        return self._found[sweep]

    def _read(self, name: str) -> Run | None:
        folder = self._storage.child(name)
        if not folder.exists("sweep.json"):
            return None
        try:
            raw = folder.read_json("sweep.json")
            self._told(f"reading {name}")
            run = Run(folder, name, raw, load_results(folder), self._told)
            rounds = run.rounds
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ConfigError([f"{name}: its sweep.json or results cannot be read ({error})"]) from None
        if others := _versions(rounds) - {self._version}:
            raise ConfigError(
                [
                    f"{name}: results of ray-al {', '.join(sorted(others))}, but this is {self._version}; "
                    f"run the sweep again, or use that version"
                ]
            )
        return run if len(rounds) else None

    def curve(self, arm: Arm) -> pd.DataFrame:
        """Accuracies of an arm in all runs: run, seed, trajectory_id, labels, accuracy.

        Raises:
            NotRun: there are none.
        """
        if arm not in self._curves:
            found = [run.of(arm).assign(run=run.name) for run in self.runs(arm.sweep) if run.has(arm)]
            if not found:
                raise NotRun(self.command(arm.sweep), f"{arm}" if self.runs(arm.sweep) else "")
            self._curves[arm] = pd.concat(found)[["run", "seed", "trajectory_id", "labels", "accuracy"]]
        return self._curves[arm]


def _versions(rounds: pd.DataFrame) -> set[str]:
    """The versions of ray-al that made these rounds, where they are on record."""
    texts = [text for text in rounds["versions"].dropna().unique() if text]
    return {known for text in texts if (known := json.loads(text).get("ray-al"))}


def open_results(uri: str) -> Storage:
    """A storage that is there.

    Raises:
        ConfigError: it is not, or its kind is not known.
    """
    try:
        storage = Storage.open(uri)
    except ValueError as error:
        raise ConfigError([f"storage: {error}"]) from None
    there = storage.local.is_dir() if storage.local else storage.list()
    if not there:
        raise ConfigError([f"storage {uri!r} is not there; give the folder that holds the sweeps' results"])
    return storage
