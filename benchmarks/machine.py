"""The machine a benchmark ran on, for the record, and how its numbers are written."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("ray-al", "ray", "numpy", "scipy", "torch", "faiss-gpu", "scikit-learn", "scikit-activeml", "pyarrow")


def machine(packages: Iterable[str] = PACKAGES) -> dict[str, Any]:
    """Processor, cores, memory, versions and date."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "versions": found,
        "load_before": round(os.getloadavg()[0], 2),  # above 0.5, something else was running
        "date": datetime.date.today().isoformat(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def write_json(path: str | Path, result: Any, show: bool = True) -> None:
    """Write results, and print them unless they are shown as they come."""
    text = json.dumps(result, indent=1)
    if show:
        print(text)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
