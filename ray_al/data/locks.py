"""One builder at a time: file locks that end with their process, and what killed builders leave behind."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

_DRAFT = re.compile(r"\.(?P<name>[a-z0-9_]+-[0-9a-f]+)\.[0-9a-f]+\.tmp")
# What file systems without locks answer. Two builders at once then both build, and one of them wins the rename.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextlib.contextmanager
def exclusive(folder: Path, name: str) -> Iterator[bool]:
    """Wait for the lock of `name` in `folder` and hold it. Yields False where the file system has no locks.

    The operating system frees the lock when its process ends in any way. The empty lock file stays: deleting it would
    let a third builder lock a new file of the same name beside the one that is held.
    """
    with open(folder / f".{name}.lock", "ab") as handle:
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        except ImportError:
            yield False
            return
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            yield False
            return
        yield True


def new_draft(folder: Path, name: str) -> Path:
    """A path for a half-built or discarded artifact; hidden, so that no listing takes it for a whole one."""
    return folder / f".{name}.{uuid.uuid4().hex[:12]}.tmp"


def clean_leftovers(folder: Path, held: str) -> None:
    """Delete drafts whose builder is gone: those of `held`, which the caller has locked, and of names nobody locks."""
    import fcntl

    for draft in folder.glob(".*.tmp"):
        match = _DRAFT.fullmatch(draft.name)
        if match is None:
            continue
        if match["name"] == held:
            shutil.rmtree(draft, ignore_errors=True)
            continue
        with contextlib.suppress(OSError), open(folder / f".{match['name']}.lock", "ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(draft, ignore_errors=True)
