"""Devices to test on, and draws that several tests of resident rows need."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from scipy.special import softmax

from ray_al.kernels.device.scores import Head

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Many small operations wait for each other where the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def id_lists(count: int) -> st.SearchStrategy[np.ndarray]:
    return st.lists(st.integers(0, count - 1), max_size=count).map(lambda items: np.array(items, np.int64))


def random_head(rng: np.random.Generator, d: int, classes: int, members: int | None = None) -> Head:
    shape = (classes, d) if members is None else (members, classes, d)
    return Head(rng.standard_normal(shape).astype(np.float32), rng.standard_normal(shape[:-1]).astype(np.float32))


def exact_probs(x: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return softmax(x.astype(np.float64) @ weights.T.astype(np.float64) + bias, axis=1)
