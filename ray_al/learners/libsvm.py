"""libsvm on kernel matrices, as scikit-learn ships it.

`SVC` spends most of a small fit on checks of its inputs. They are left out here; the numbers are its own, bit for bit.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

CACHE_MB = 200.0  # of kernel rows, as in SVC


@dataclass(frozen=True, eq=False)
class Machine:
    """A trained one-vs-one C-SVC of K classes, in libsvm's own signs: above 0 is a vote for the pair's first class."""

    support: np.ndarray  # (S,) int32 positions among the training rows, by class
    counts: np.ndarray  # (K,) int32 support vectors per class
    duals: np.ndarray  # (K-1, S)
    intercepts: np.ndarray  # (P,) P = K (K - 1) / 2


def train(kernel: np.ndarray, targets: np.ndarray, c: float) -> Machine:
    """Fit on the (n, n) kernel matrix of n rows; their `targets` are 0..K-1, two classes or more and none left out.

    Raises:
        ValueError: there is one class only, or one without rows.
    """
    counts = np.bincount(targets, minlength=2)
    if counts.min() == 0:
        raise ValueError(f"libsvm needs two classes or more, all with rows; theirs are {counts.tolist()}")
    kernel = np.ascontiguousarray(kernel, np.float64)
    binding = _binding()
    if binding is None:
        return _by_svc(kernel, targets, c, "precomputed")
    return _plain(binding, kernel, targets, c)


def by_vectors(inputs: np.ndarray, targets: np.ndarray, c: float, kernel: str, gamma: float) -> Machine:
    """Fit on (n, D) float64 inputs, of which libsvm works out the kernel rows that it needs: for n beyond a matrix."""
    return _by_svc(inputs, targets, c, kernel, gamma)


def decisions(machine: Machine, kernel: np.ndarray) -> np.ndarray:
    """(m, P) decision values of m rows whose kernel values with all training rows are `kernel`, (m, n)."""
    binding = _binding()
    if binding is None:
        return pairwise(machine, kernel[:, machine.support])
    return _values(binding, machine, np.ascontiguousarray(kernel, np.float64))


def pairwise(machine: Machine, similar: np.ndarray) -> np.ndarray:
    """(m, P) decision values from the (m, S) kernel values with the support vectors alone, as matrix products."""
    ends = np.cumsum(machine.counts)
    spans = zip(ends - machine.counts, ends, strict=True)  # of each class among the support vectors
    parts = np.stack([similar[:, a:b] @ machine.duals[:, a:b].T for a, b in spans])  # (K, m, K-1)
    first, second = np.triu_indices(len(ends), 1)  # (P,) libsvm's order of the pairs
    return (parts[first, :, second - 1] + parts[second, :, first]).T + machine.intercepts


@functools.cache
def _binding() -> Any:
    """scikit-learn's internal binding, or None where a version of it answers otherwise than SVC on a small problem."""
    from sklearn import svm

    kernel, targets = np.diag([1.0, 2.0, 3.0, 4.0]) + 0.5, np.array([0, 1, 0, 1])
    expected = _by_svc(kernel, targets, 0.7, "precomputed")
    try:
        binding = svm._libsvm
        binding.set_verbosity_wrap(0)
        found = _plain(binding, kernel, targets, 0.7)
        pairs = [(getattr(found, name), getattr(expected, name)) for name in Machine.__dataclass_fields__]
        same = all(np.array_equal(a, b) for a, b in pairs)
        return binding if same and _values(binding, found, kernel).shape == (4, 1) else None
    except (AttributeError, TypeError, ValueError):
        return None


def _plain(binding: Any, kernel: np.ndarray, targets: np.ndarray, c: float) -> Machine:
    answer = binding.fit(kernel, targets.astype(np.float64), kernel="precomputed", C=c, cache_size=CACHE_MB)
    return Machine(answer[0], *answer[2:5])


def _values(binding: Any, machine: Machine, kernel: np.ndarray) -> np.ndarray:
    none = np.empty(0)  # of probabilities
    found: np.ndarray = binding.decision_function(
        kernel, machine.support, np.empty((0, 0)), machine.counts, machine.duals, machine.intercepts, none, none,
        kernel="precomputed", cache_size=CACHE_MB,
    )  # fmt: skip
    return found


def _by_svc(inputs: np.ndarray, targets: np.ndarray, c: float, kernel: str, gamma: float = 1.0) -> Machine:
    from sklearn.svm import SVC

    svc = SVC(C=c, kernel=kernel, gamma=gamma, cache_size=CACHE_MB).fit(inputs, targets)
    sign = -1.0 if len(svc.classes_) == 2 else 1.0  # scikit-learn turns libsvm's sign around for two classes
    return Machine(svc.support_, svc.n_support_, sign * svc.dual_coef_, sign * svc.intercept_)
