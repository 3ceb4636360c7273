"""Progress of an extraction: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ray_al.cluster.extract import Progressed

LINE_SECONDS = 10.0
_SHOWN = 5  # broken images named one by one; all of them are in failures.csv


class ExtractionProgress:
    """Counts images; the rate is of this run alone."""

    def __init__(self, total: int, there: int, console: Console) -> None:
        self._total, self._there, self._console = total, there, console
        self._images = self._failed = 0
        self._started = self._last_line = time.monotonic()
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("", total=total, completed=there, rate="")

    def __enter__(self) -> ExtractionProgress:
        if self._there:
            self._say(f"{self._there:,} of {self._total:,} images are there already")
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()
        if kind is None or not self._console.is_terminal:
            self._say(self._line())

    def advance(self, done: Progressed) -> None:
        self._images += done.images
        for name, reason in list(done.failed.items())[: max(0, _SHOWN - self._failed)]:
            self._say(f"cannot decode {name}: {reason}")
        self._failed += len(done.failed)
        self._bar.update(self._task, advance=done.images, rate=self._rate())
        over = self._there + self._images == self._total  # then a last line follows
        if not self._console.is_terminal and not over and time.monotonic() - self._last_line > LINE_SECONDS:
            self._last_line = time.monotonic()
            self._say(self._line())

    def _line(self) -> str:
        left = self._total - self._there - self._images
        return f"{self._there + self._images:,}/{self._total:,} images, {self._rate()}{self._left(left)}"

    def _rate(self) -> str:
        broken = f", {self._failed:,} broken" if self._failed else ""
        return f"{self._images / max(1e-9, time.monotonic() - self._started):,.0f} images/s{broken}"

    def _left(self, images: int) -> str:
        if not images or not self._images:
            return ""
        minutes, seconds = divmod(round(images * (time.monotonic() - self._started) / self._images), 60)
        hours, minutes = divmod(minutes, 60)
        return f", {hours}h{minutes:02d}m left" if hours else f", {minutes}m{seconds:02d}s left"

    def _say(self, text: str) -> None:
        # Names and reasons are other people's texts: brackets in them are no markup.
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
