"""Grids of active-learning experiments on Ray."""

from ray_al.results.load import load_epochs, load_results

__version__ = "0.1.0"
__all__ = ["load_epochs", "load_results"]
