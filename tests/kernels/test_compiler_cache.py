"""A process that compiles the loops and one that finds them compiled give the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WORK = """
import hashlib
import numpy as np
from ray_al.kernels.kmeans import kmeans
from ray_al.kernels.logistic import fit_logistic

rng = np.random.default_rng(0)
y = rng.integers(0, 10, 3000)
x = (rng.standard_normal((10, 96))[y] + rng.standard_normal((3000, 96))).astype(np.float16)
found = []
for n in range(50, 650, 6):  # without and with fewer rows than are factored as columns
    found += fit_logistic([(x[n : 2 * n], y[n : 2 * n])], 10)[0]
found += kmeans(x, 70, 0)
print(hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in found)).hexdigest())
"""


@pytest.mark.slow
def test_code_from_the_cache_gives_the_bits_of_code_just_compiled(tmp_path: Path) -> None:
    told = []
    for _ in range(2):
        process = subprocess.run(
            [sys.executable, "-c", WORK],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        told.append(process.stdout)
    assert any(tmp_path.rglob("*.nbc"))
    assert told[0] == told[1]
