"""Matrices that are hard on distance code, and naive float64 references."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

NO_IDS = np.empty(0, np.int64)


@st.composite
def matrices(draw: st.DrawFn, max_rows: int = 40, dtypes: tuple[str, ...] = ("float32", "float16", "uint8")):
    """Small (N, d) matrices: far offsets, duplicates, ties on a grid, tight clusters, every dtype, read-only or not."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, columns = draw(st.integers(1, max_rows)), draw(st.integers(1, 12) | st.sampled_from([16, 37]))
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    kind = draw(st.sampled_from(["gauss", "grid", "duplicates", "clusters", "constant"]))
    if kind == "gauss":
        x = rng.standard_normal((rows, columns))
    elif kind == "grid":
        x = rng.integers(0, 3, (rows, columns)).astype(float)
    elif kind == "duplicates":
        x = rng.standard_normal((max(1, rows // 3), columns))[rng.integers(0, max(1, rows // 3), rows)]
    elif kind == "clusters":
        x = 10 * rng.standard_normal((3, columns))[rng.integers(0, 3, rows)] + 1e-3 * rng.standard_normal(
            (rows, columns)
        )
    else:
        x = np.full((rows, columns), 3.0)
    if dtype == np.uint8:
        x = np.clip(np.round(20 * x + 100), 0, 255)
    elif draw(st.booleans()):
        x = x + 50
    x = x.astype(dtype)
    x.flags.writeable = draw(st.booleans())
    return x


def distances(x: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n, m) float64 Euclidean distances, from differences."""
    x, others = x.astype(np.float64), others.astype(np.float64)
    return np.sqrt(np.square(x[:, None] - others[None]).sum(2))
