"""Where an error arose, in a few words: for records, which hold no tracebacks."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

_LIBRARIES = (str(Path(__file__).parents[1]), sysconfig.get_path("stdlib"))
_INSTALLED = {"site-packages", "dist-packages"}


def told(error: BaseException, brief: bool = False) -> str:
    """Type, message and place of an error; `brief`: of the message its first line, or 500 characters of that.

    One of a service arrives wrapped, its `cause` without a traceback: its place is then that of the call.
    """
    cause = getattr(error, "cause", None) or error
    message = str(cause)
    if brief:
        message = next((line.strip() for line in message.splitlines() if line.strip()), "")[:500]
    place = whereabouts(cause) or whereabouts(error)
    return f"{type(cause).__name__}: {message}" + (f" ({place})" if place else "")


def whereabouts(error: BaseException) -> str:
    """`file.py:12, in function` of the innermost frame that is neither ours nor a library's; of the innermost one, if
    there is no such; "" without a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_own(frame.filename)]
    for frame in (own or frames)[-1:]:
        return f"{Path(frame.filename).name}:{frame.lineno}, in {frame.name}"
    return ""


def _is_own(file: str) -> bool:
    return not (file.startswith((*_LIBRARIES, "<")) or _INSTALLED & set(Path(file).parts))
