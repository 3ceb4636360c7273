"""Progress of a running sweep: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from ray import tune
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from ray_al.cluster.members import Event, read_members
from ray_al.experiment import Sweep, TrajectoryConfig
from ray_al.results.dataset import LedgerIndex
from ray_al.results.ledger import Ledger
from ray_al.storage import Storage

LINE_SECONDS = 10.0
RATE_SECONDS, RATE_ROUNDS = 5.0, 5  # after the first rounds, from which on there is a rate to tell
DIED = "its process died"


class Progress(tune.Callback):
    """Counts what Tune reports, and records trajectories whose process died more often than retries allow."""

    def __init__(self, sweep: Sweep, at_start: LedgerIndex, folder: Storage, console: Console):
        trajectories = sweep.trajectories
        self._all = {t.id: t for t in trajectories}
        self._folder, self._console, self._retries = folder, console, sweep.resources.retries
        self.again: deque[TrajectoryConfig] = deque()  # that broke off, to be run once more
        self._attempts: Counter[str] = Counter()  # that broke off
        self._ended: defaultdict[str, set[str]] = defaultdict(set)  # trajectories, by the trial that said so
        self.closed: set[str] = set()  # trials that are over
        self._rounds = {i: n for i, n in at_start.rounds.items() if i in self._all}
        self._accuracy: dict[str, float] = {}
        self._running: set[str] = set()
        self.done = {i for i in at_start.done if i in self._all}
        self.failed: dict[str, str] = {}
        self._first: tuple[float, int] | None = None  # when this run's first rounds came in, and all rounds then
        self._last_line = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        else:
            self._console.print(self._line(), highlight=False, soft_wrap=True)

    def __reduce__(self) -> Any:
        # Tune pickles its callbacks to be able to restore a run; ours go on from the ledger and need no restoring.
        return tune.Callback, ()

    def lose(self, trajectories: Sequence[TrajectoryConfig]) -> None:
        """Tune is done: those of these that it did not bring to an end are failures."""
        for config in trajectories:
            if config.id not in self.done and config.id not in self.failed:
                self._give_up(config.id, "Tune lost its trial")

    # Tune's callbacks

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        for trial in trials:  # it does not tell of every trial that it ends
            if trial.is_finished():
                self._close(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        for event in result["events"]:
            self._take(Event(*event), self._ended[trial.trial_id])
        self._tick()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._close(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._close(trial)

    def _take(self, event: Event, ended: set[str]) -> None:
        before = self._rounds.get(event.id, 0)
        self._rounds[event.id] = event.rounds
        self._accuracy[event.id] = event.accuracy
        if self._first is None and event.rounds > before:
            self._first = time.monotonic(), sum(self._rounds.values())
        if not event.end:
            self._running.add(event.id)
            if event.text:
                self._note(f"{_called(self._all[event.id])}: {event.text}", "yellow")
            return
        ended.add(event.id)
        self._running.discard(event.id)
        if event.end == "done":
            self.done.add(event.id)
        elif event.end == "failed":
            self._fail(event.id, event.text)
        else:
            self._try_again(event.id, event.text)

    def _close(self, trial: Any) -> None:
        """A trial is over. Those of its trajectories that have not ended lost their process."""
        if trial.trial_id in self.closed:
            return
        self.closed.add(trial.trial_id)
        ended = self._ended.pop(trial.trial_id, set())
        members = [member.id for member in read_members(trial.config)]
        lost = [member for member in members if member not in ended]
        self._running.difference_update(lost)
        if len(members) == 1:
            for member in lost:
                self._try_again(member, DIED)
        elif lost:  # one of them may be at fault: alone, it will be seen
            self._note(f"a trial broke off; each of its {len(lost)} trajectories goes on from its ledger, alone")
            self.again.extend(self._all[member] for member in lost)

    def _try_again(self, trajectory: str, error: str) -> None:
        config = self._all[trajectory]
        self._attempts[trajectory] += 1
        if self._attempts[trajectory] <= self._retries:
            self._note(f"{_called(config)}: {error}; going on from its ledger")
            self.again.append(config)
        else:
            self._give_up(trajectory, error)

    def _give_up(self, trajectory: str, error: str) -> None:
        ledger = Ledger(self._folder, self._all[trajectory].name)
        try:
            ledger.fail(len(ledger.load()[0]), error, min(self._attempts[trajectory], self._retries), {})
        except OSError as full:
            error += f" (and this could not be recorded: {full})"
        self._fail(trajectory, error)

    def _fail(self, trajectory: str, error: str) -> None:
        self.failed[trajectory] = error
        self._note(f"failed: {_called(self._all[trajectory])}: {error}", "red")

    def _note(self, text: str, style: str | None = None) -> None:
        # Names and errors are other people's texts: brackets in them are no markup.
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    # What is shown

    def _tick(self) -> None:
        if self._live is None and time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            self._console.print(self._line(), highlight=False, soft_wrap=True)

    def _pace(self) -> str:
        """Rounds per minute, counted from the first ones on (start-up tells nothing of them), and the time left."""
        if self._first is None:
            return ""
        seconds, rounds = time.monotonic() - self._first[0], sum(self._rounds.values()) - self._first[1]
        if seconds < RATE_SECONDS or rounds < RATE_ROUNDS:
            return ""
        open_ = [(i, t) for i, t in self._all.items() if i not in self.done and i not in self.failed]
        wanted = sum(t.protocol.rounds - self._rounds.get(i, 0) for i, t in open_)
        rate = f"{rounds / seconds * 60:.0f} rounds/min"
        return f"{rate}, {_left(wanted / rounds * seconds)}" if wanted else rate

    def _line(self) -> str:
        waiting = len(self._all) - len(self.done) - len(self.failed) - len(self._running)
        counts = (
            f"{len(self.done)}/{len(self._all)} done, {len(self._running)} running, {waiting} open, "
            f"{len(self.failed)} failed"
        )
        return ", ".join(filter(None, (counts, self._pace())))

    def _table(self) -> Table:
        table = Table(title=self._pace() or None, title_justify="left", expand=False)
        for column in ("strategy", "done", "running", "open", "failed", "mean accuracy", "best"):
            table.add_column(column, justify="left" if column == "strategy" else "right")
        groups: dict[str, list[str]] = defaultdict(list)
        for i, t in self._all.items():
            groups[t.name.strategy].append(i)
        for strategy, ids in groups.items():
            values = [self._accuracy[i] for i in ids if i in self._accuracy and math.isfinite(self._accuracy[i])]
            shown = (f"{sum(values) / len(values):.4f}", f"{max(values):.4f}") if values else ("", "")
            table.add_row(escape(strategy), *self._counts(ids), *shown)
        if len(groups) > 1:
            table.add_row("all", *self._counts(list(self._all)), "", "", style="bold")
        return table

    def _counts(self, ids: list[str]) -> list[str]:
        done, failed, running = (len(set(ids) & set(group)) for group in (self.done, self.failed, self._running))
        return [f"{done}/{len(ids)}", str(running), str(len(ids) - done - failed - running), str(failed)]


def _called(config: TrajectoryConfig) -> str:
    name = config.name
    return f"{name.strategy} on {name.dataset}, {name.learner}, {name.protocol}, seed {name.seed}"


def _left(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}h{minutes % 60:02d}m left" if minutes >= 60 else f"{minutes}m{rest:02d}s left"
