"""The papers that can be compared, by their names on the command line."""

from __future__ import annotations

from collections.abc import Mapping

from ray_al.reproduction import rethinking, vae
from ray_al.reproduction.claims import Paper

PAPERS: Mapping[str, Paper] = {paper.key: paper for paper in (vae.PAPER, rethinking.PAPER)}
