"""Faults of datasets and spaces: messages that name the value and the choices, collected and raised together."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

Check = Callable[[Any], "str | None"]  # what is wrong with a value ("must be ..."), or None


class DataError(ValueError):
    """Everything wrong with a dataset or space, one message per fault in `faults`."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(self.faults)

    def __str__(self) -> str:
        return "\n".join(self.faults)


def choices(word: object, known: Iterable[str]) -> str:
    """The tail of an unknown-name message: the nearest known name, if one is near, and all of them."""
    names = sorted(set(known))
    near = difflib.get_close_matches(word if isinstance(word, str) else shown(word), names, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"; {hint}known: {', '.join(names) or 'none'}"


def shown(value: object) -> str:
    """A value as messages print it, cut to 80 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # YAML can give numbers of more digits, and deeper lists, than Python prints
        return f"a value too large to show ({type(value).__name__})"
    return text if len(text) <= 80 else text[:77] + "..."


def user_path(path: str) -> Path:
    """The path, `~` expanded; DataError where it names no user of this machine."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError([f"{shown(path)} is no path of this machine: {error}"]) from None


def whole(low: int, high: int) -> Check:
    def check(value: Any) -> str | None:
        good = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return None if good else f"must be a whole number from {low} to {high}"

    return check


def number(low: float, high: float, *, open_low: bool = False, open_high: bool = False) -> Check:
    def check(value: Any) -> str | None:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        good = good and (isinstance(value, int) or math.isfinite(value))
        good = good and (low < value if open_low else low <= value) and (value < high if open_high else value <= high)
        sides = f"{'above' if open_low else 'at least'} {low:g} and {'below' if open_high else 'at most'} {high:g}"
        return None if good else f"must be a number {sides}"

    return check


def text(value: Any) -> str | None:
    return None if isinstance(value, str) and value.strip() else "must be a non-empty text"


def flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def distinct_classes(value: Any) -> str | None:
    good = isinstance(value, list | tuple) and len(value) >= 2
    good = good and all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**31 for v in value)
    return None if good and len(set(value)) == len(value) else "must be a list of two or more distinct class numbers"
