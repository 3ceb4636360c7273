"""The Triton kernel of linear scores, in Triton's interpreter, or on a GPU where there is one."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")

# Rows, numbers of a row, classes, heads, type. Tails of every kind: rows, columns, classes, groups of four heads.
CASES = [
    (130, 70, 10, 6, "float16"),
    (64, 33, 150, 2, "float16"),
    (64, 40, 3, 5, "float32"),
    (20, 64, 1, 1, "float16"),
]

SCRIPT = """
import json, sys
import torch
from ray_al.kernels.device.fused import fused_scores
device = sys.argv[2]
found = []
for n, d, classes, heads, kind in json.loads(sys.argv[1]):
    draw = torch.Generator().manual_seed(n + d)
    x = torch.randn((n, d), generator=draw).to(getattr(torch, kind))
    w = 0.3 * torch.randn((heads, classes, d), generator=draw)
    b = torch.randn((heads, classes), generator=draw)
    w[-1, -1] = w[-1, 0]  # two largest alike, now and then
    b[-1, -1] = b[-1, 0]
    z = torch.einsum("nd,tcd->tnc", x.double(), w.double()) + b.double()[:, None]
    p = z.softmax(2)
    first = p.sort(2, descending=True).values
    second = first[..., 1] if classes > 1 else 0
    truth = {
        "entropy": torch.special.entr(p).sum(2),
        "least_confidence": 1 - first[..., 0],
        "margin": 1 - (first[..., 0] - second),
    }
    for score, expected in truth.items():
        out = torch.full((heads, n), torch.nan, device=device)
        alone = torch.full((1, n), torch.nan, device=device)
        fused_scores(x.to(device), w.to(device), b.to(device), score, out)
        fused_scores(x.to(device), w[-1:].to(device), b[-1:].to(device), score, alone)
        found.append([score, float((out.cpu() - expected).abs().max()), torch.equal(out[-1:], alone)])
print(json.dumps(found))
"""


def test_scores_are_those_of_float64_and_of_a_head_alone():
    """In a process of its own: whether kernels are interpreted is settled when Triton is imported."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({} if device == "cuda" else {"TRITON_INTERPRET": "1"})}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, json.dumps(CASES), device]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 3 * len(CASES)
    for score, error, equal in found:
        assert error < 5e-6, score
        assert equal, score
