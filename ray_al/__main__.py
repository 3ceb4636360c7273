"""The process of the command `ray-al`, and of `python -m ray_al`: its faults, its exit codes, its end."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
import warnings
from typing import Any, NoReturn

from rich.markup import escape

from ray_al.cli import app, err
from ray_al.data.faults import DataError
from ray_al.storage import DamagedFile, DamageWarning
from ray_al.sweep_file import ConfigError


def entry() -> NoReturn:
    """Entry point: `main`, and an end without taking all modules apart, for which Python takes a second after a run.

    Threads that still run are not waited for: no command leaves one behind.
    """
    gc.set_threshold(100_000, 10, 10)  # a run imports some 300,000 objects, which would be gone over again and again
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            err.print(end.code, markup=False, highlight=False, soft_wrap=True)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # who read it has gone, or it was never open
            stream.flush()
    os._exit(code)


def main() -> None:
    """A fault of the user's is one clear message and exit code 2, never a traceback."""
    warnings.showwarning = _show_warning
    try:
        sys.path.insert(0, os.getcwd())  # own methods by Python path, from the folder the command is run in
        _check_threads()
        app()
    except (ConfigError, DataError, DamagedFile) as error:
        for fault in getattr(error, "faults", (str(error),)):
            err.print(f"[red]error:[/] {escape(fault)}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:  # a full or vanished disk, outside of any trajectory
        err.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        err.print("stopped")
        sys.exit(130)


def _check_threads() -> None:
    """Kernels read the variable when they start, in processes of their own, too: late for a message."""
    text = os.environ.get("RAY_AL_THREADS", "1")
    with contextlib.suppress(ValueError):
        if int(text) > 0:
            return
    raise ConfigError([f"RAY_AL_THREADS is {text!r}; it must be a positive integer"])


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: object = None, line: Any = None
) -> None:
    """Ours in one line; those of libraries as ever."""
    if issubclass(category, DamageWarning):
        err.print(f"[yellow]warning:[/] {escape(str(message))}", highlight=False, soft_wrap=True)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


if __name__ == "__main__":
    entry()
