"""Ways to run `ray-al features` in tests: as a command, or many times in one Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from ray_al import features as module

BACKBONE = """
import pathlib
import time
import torch

class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, 2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten()
        )

    def forward(self, images):
        if pathlib.Path(__file__).with_name("slowly").exists():
            time.sleep(0.15)
        return self.layers(images)

def net():
    torch.manual_seed(0)
    return Tiny()
"""
SIZES = ("--resize", "16", "--crop", "16", "--batch-size", "8", "--shard-size", "16")


def command(out: str, *options: str) -> list[str]:
    words = ["features", "imagefolder:photos", "--out", out, "--backbone", "tiny_backbone:net", *SIZES]
    return [sys.executable, "-m", "ray_al", *words, "--no-dashboard", *options]


def features(place: Path, out: str, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        command(out, *options), cwd=place, env=environment, capture_output=True, text=True, timeout=200, check=False
    )


def files(folder: Path) -> dict[str, bytes]:
    """All bytes of a finished folder, but for the record of how it went."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name not in ("run.json", ".lock")}


class InOneRay:
    """The same extraction without a command of its own: many of them share one local Ray."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __call__(self, out: str, sources: tuple[str, ...] = ("imagefolder:photos",), **choice: Any) -> Path:
        request = module.parse_request(
            sources, "tiny_backbone:net", None, "float32", "float16", out,
            {"resize": 16, "crop": 16, **choice.pop("preprocess", {})},
            batch=8, **{"shard": 16, **choice},
        )  # fmt: skip
        module.run_features(request, Console(quiet=True))
        return self.place / out
