"""Importing this brings in what the first call of a pool scorer would otherwise wait for."""

from ray_al.kernels import blocks, kcenter, kmeanspp, logistic, small_fit, top_scores

__all__ = ["blocks", "kcenter", "kmeanspp", "logistic", "small_fit", "top_scores"]
