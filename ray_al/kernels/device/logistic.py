"""Multinomial logistic regression on resident rows, many problems at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ray_al.kernels import blocks
from ray_al.kernels.device.newton import SoftmaxBatch, minimize
from ray_al.kernels.device.rows import DeviceRows
from ray_al.kernels.logistic import ABSENT_BIAS, CERTAINTY, LOST, NEGLIGIBLE, LinearHead

_WORK = 4e9  # operations of an inner iteration that keep a GPU busy: larger batches gain nothing
_AT_ONCE = {"cuda": 16}  # problems of a batch at most; elsewhere one, as nothing is launched


class _Task(NamedTuple):
    """One problem: rows `ids`, labels as positions in `present`."""

    place: int
    ids: np.ndarray
    label: np.ndarray
    present: np.ndarray


def fit(
    rows: DeviceRows, problems: Sequence[tuple[np.ndarray, np.ndarray]], classes: int, l2: float, tol: float
) -> list[LinearHead]:
    """Heads of problems (ids (n,), labels (n,)), as `ray_al.kernels.logistic.fit_logistic` gives them, within `tol`.

    Problems of about the same size are solved as one batch. A batch is always full, and its shapes depend on each
    problem's own size, so an answer does not depend on the other problems of the call.
    """
    if not l2 > 0 or not tol > 0:
        raise ValueError(f"l2 and tol must be positive, got {l2} and {tol}")
    heads: dict[int, LinearHead] = {}
    sized: dict[tuple[int, int], list[_Task]] = {}
    for index, (ids, labels) in enumerate(problems):
        task = _task(rows, index, ids, labels, classes)
        if len(task.present) == 1:
            heads[index] = _head(rows, task, classes, np.zeros((1, rows.width)), np.zeros(1))
        else:
            sized.setdefault((_filled(len(ids), 16), _filled(len(task.present), 2)), []).append(task)
    for (n, c), tasks in sized.items():
        most = _AT_ONCE.get(rows.device.type, 1)
        size = 1 << max(0, min(most.bit_length() - 1, int(_WORK / (4.0 * n * c * rows.width)).bit_length() - 1))
        for first in range(0, len(tasks), size):
            part = tasks[first : first + size]
            batch = part + [part[0]] * (size - len(part))
            weights, bias = _solve(rows, batch, n, c, l2, tol)
            for task, w, b in zip(part, weights, bias, strict=False):
                heads[task.place] = _head(rows, task, classes, w, b)
    return [heads[index] for index in range(len(problems))]


def _task(rows: DeviceRows, index: int, ids: np.ndarray, labels: np.ndarray, classes: int) -> _Task:
    ids, labels = blocks.check_ids(ids, rows.count, "ids"), np.asarray(labels)
    if labels.shape != ids.shape or labels.dtype.kind not in "iu" or not len(ids):
        raise ValueError(f"labels {labels.shape} of {labels.dtype} do not fit ids {ids.shape}: one integer label a row")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"label {labels.min() if labels.min() < 0 else labels.max()} is outside 0..{classes - 1}")
    present, label = np.unique(labels, return_inverse=True)
    return _Task(index, ids, label.astype(np.int64), present)


def _filled(count: int, least: int) -> int:
    """count rounded up, by a quarter at most: problems of similar size share a batch."""
    step = max(least, 1 << max(0, count.bit_length() - 3))
    return -(-count // step) * step


def _head(rows: DeviceRows, task: _Task, classes: int, weights: np.ndarray, bias: np.ndarray) -> LinearHead:
    head = LinearHead(np.zeros((classes, rows.width), np.float32), np.full(classes, ABSENT_BIAS, np.float32))
    head.weights[task.present] = weights[: len(task.present)]
    head.bias[task.present] = bias[: len(task.present)]
    return head


def _solve(
    rows: DeviceRows, batch: Sequence[_Task], n: int, c: int, l2: float, tol: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (G, c, d) and bias (G, c), float64."""
    device, groups = rows.device, len(batch)
    ids, label = np.zeros((groups, n), np.int64), np.zeros((groups, n), np.int64)
    for row, task in enumerate(batch):
        ids[row, : len(task.ids)], label[row, : len(task.ids)] = task.ids, task.label
    counts = torch.tensor([len(task.ids) for task in batch], device=device)
    number = torch.tensor([len(task.present) for task in batch], device=device)
    real = torch.arange(n, device=device) < counts[:, None]  # (G, n)
    present = torch.arange(c, device=device) < number[:, None]  # (G, c)
    x = rows.doubles(torch.from_numpy(ids).to(device)) * real[:, :, None]  # (G, n, d)
    mean = x.sum(1, keepdim=True) / counts[:, None, None]
    x = x.sub_(mean).mul_(real[:, :, None])  # centered: the bias is then orthogonal to the rest
    kappa = CERTAINTY / number.double()
    # M = kappa X'X + l2 I = L L', U = W L, F = X L^-T: coordinates in which the problem is well conditioned.
    m = torch.bmm(x.mT, x).mul_(kappa[:, None, None])
    m.diagonal(dim1=1, dim2=2).add_(l2)
    lower, info = torch.linalg.cholesky_ex(m)
    # Where rounding of X'X comes near the penalty X itself is factored; each problem by itself, so that none depends on
    # those beside it.
    steep = kappa * LOST * counts * x.square().sum((1, 2)) > NEGLIGIBLE * l2
    for one in torch.nonzero(steep)[:, 0].tolist():
        root = torch.eye(rows.width, dtype=x.dtype, device=device).mul_(l2**0.5)
        stacked = torch.cat([x[one] * kappa[one].sqrt(), root])
        lower[one], info[one] = torch.linalg.qr(stacked, mode="r").R.T, 0
    if bool(info.any()):
        raise FloatingPointError(f"l2 {l2} is too small for rows of this size: the penalized second moment is singular")
    eye = torch.eye(rows.width, dtype=x.dtype, device=device).expand_as(lower)
    inverse = torch.linalg.solve_triangular(lower, eye, upper=False)
    unit = (kappa * counts).rsqrt()  # the column that makes |U|^2 - kappa |Z|^2 free of the bias
    features = torch.cat([torch.bmm(x, inverse.mT), real[:, :, None] * unit[:, None, None]], 2)  # (G, n, d + 1)
    del x
    u = minimize(SoftmaxBatch(features, torch.from_numpy(label).to(device), real, present, kappa), tol)
    weights = torch.bmm(u[:, :, :-1], inverse)
    bias = u[:, :, -1] * unit[:, None] - (weights * mean).sum(2)
    return weights.cpu().numpy(), bias.cpu().numpy()
