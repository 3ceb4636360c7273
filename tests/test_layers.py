"""The layer rule: who may import whom, and what a light process must not import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "ray_al"

# Each part of the package, and what it may import of it. A file at the top is a part of its own.
ALLOWED = {
    "storage": set(),
    "core": set(),
    "kernels": set(),
    "services": {"core", "kernels"},
    "strategies": {"core", "kernels"},
    "learners": {"core", "kernels"},
    "generative": {"core", "kernels"},
    "data": {"core", "generative", "storage"},
    "backbones": {"data"},
    "results": {"core", "storage"},
    "method": set(),
    "methods": {"method", "strategies", "learners"},
    "sweep_file": set(),
    "experiment": {"core", "data", "method", "methods", "results", "sweep_file"},
    "cells": {"core", "data", "experiment", "sweep_file"},
    "grid": {"cells", "core", "data", "experiment", "results"},
    "config": {"cells", "data", "experiment", "grid", "methods", "sweep_file"},
    "assemble": {"core", "data", "experiment", "methods", "services", "storage"},
    "space_facts": {"data", "experiment", "results", "storage"},
    "cluster": {
        *("assemble", "backbones", "core", "data", "experiment", "generative", "results", "services", "space_facts"),
        *("storage", "sweep_file"),
    },
    "features": {"backbones", "cluster", "data"},
    "features_command": {"features"},
    "reproduction": {"data", "methods", "results", "space_facts", "storage", "sweep_file"},
    "reproduce_command": {"reproduction", "sweep_file"},
    "listing": {"data", "generative", "methods"},
    "planning": {"assemble", "cluster", "config", "data", "experiment", "results", "storage", "sweep_file"},
    "verify": {"assemble", "config", "core", "results", "storage", "sweep_file"},
}


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def _part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_layers(path: Path) -> None:
    part = _part(path)
    if part in ("cli", "__init__", "__main__"):
        return
    used = {name.split(".")[1] for name in _imports(path) if name.startswith("ray_al.")}
    assert used - {part} <= ALLOWED[part]


def test_no_two_parts_import_each_other() -> None:
    for part, others in ALLOWED.items():
        assert not [other for other in others if part in ALLOWED[other]]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_cluster_imports_ray(path: Path) -> None:
    uses_ray = any(name.split(".")[0] == "ray" for name in _imports(path))
    assert not uses_ray or _part(path) == "cluster"


def test_light_imports() -> None:
    """What a trial imports leaves out what costs seconds and hundreds of megabytes."""
    code = (
        "import sys, ray_al, ray_al.methods, ray_al.cluster.trial\n"
        "heavy = {'torch', 'sklearn', 'faiss', 'torchvision', 'matplotlib', 'scipy', 'tensorboardX'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
