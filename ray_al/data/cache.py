"""This machine's cache folder."""

from __future__ import annotations

import os
from pathlib import Path

from ray_al.data.faults import user_path


def cache_folder() -> Path:
    """The folder that environment variable RAY_AL_CACHE names, else ~/.cache/ray-al. It may not exist yet."""
    return user_path(os.environ.get("RAY_AL_CACHE") or "~/.cache/ray-al")
