"""jLP's greedy sequence (Simeoni et al. 2019, arXiv 1911.08177, Eq. 12), exactly, in blocks of solves.

Each pick is the argmin of g = A^-1 delta(labeled + picked), A = I - alpha W. By linearity a pick p adds its own column
A^-1 e_p to g and nothing else, and columns depend on the graph alone. So columns are solved for a block of likely picks
side by side and kept. As long as the argmin over all candidates has its column, the next pick costs one addition; when
it has not, another block is solved.

Exact despite conjugate gradients: with r = delta - A g the residual of the running sum, A^-1 not negative and
A v >= (1 - alpha theta) v for v = sqrt(degrees), theta = max(W v / v), every g_i is within v_i max|r / v| / (1 - alpha
theta) of the true one. A pick is taken only when these intervals leave no doubt; otherwise g is refined in float64.
Candidates within TIE of the least, relatively, tie and are drawn at random: W's own values are rounded that much.
What nothing reaches is known by connected components: it is 0 exactly, and ties with all else that is.
"""

from __future__ import annotations

import numpy as np

from ray_al.kernels import blocks, panel
from ray_al.kernels.affinity import Affinity, components
from ray_al.kernels.compiled import compiled

TIE = 1e-7  # relative: float32 weights leave equal values that far apart
TOL = 1e-10  # of a column's residual: of 50,000 candidates hardly two are as close as what it leaves open
ATTEMPTS = 3  # at telling candidates apart; the last leaves what float64 cannot tell
KEPT = 1 << 29  # bytes of columns that are kept for later picks
_LOOK = 16  # nodes looked at for each column of a block


def pick(
    weights: Affinity, labeled: np.ndarray, allowed: np.ndarray, count: int, seed: int, alpha: float = 0.99
) -> tuple[np.ndarray, np.ndarray]:
    """`count` of the nodes `allowed`, in order: each has the least g, given the labeled and those picked before.

    Returns:
        ids (count,) int64, and their g (count,) float64 when picked.

    Raises:
        ValueError: ids that do not exist or occur twice, a labeled one that is allowed, or count is not in
            0..len(allowed); alpha is not in (0, 1).
    """
    labeled, allowed = (
        blocks.check_ids(ids, weights.count, n) for ids, n in ((labeled, "labeled"), (allowed, "allowed"))
    )
    both = np.concatenate([labeled, allowed])
    if len(np.unique(both)) < len(both):
        raise ValueError("labeled and allowed ids are distinct, and no id is both")
    if not 0 <= count <= len(allowed):
        raise ValueError(f"count is {count}, but it must lie in 0..{len(allowed)}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}, but it must be above 0 and below 1")
    priority = np.random.default_rng(seed).permutation(weights.count)  # of ties the first goes first
    picks = _unreached(weights, labeled, allowed, priority)[:count]
    values = np.zeros(count)
    if len(picks) < count:
        open_ = np.zeros(weights.count, bool)
        open_[allowed] = True
        open_[picks] = False
        spread = _Spread(weights, np.concatenate([labeled, picks]), alpha)
        later = []
        for left in range(count - len(picks), 0, -1):
            node = spread.least(open_, priority)
            values[count - left] = spread.g[node]
            later.append(node)
            open_[node] = False
            if left > 1:
                spread.add(node, open_, left)
        picks = np.concatenate([picks, np.array(later, np.int64)])
    return picks, values


def _unreached(weights: Affinity, labeled: np.ndarray, allowed: np.ndarray, priority: np.ndarray) -> np.ndarray:
    """The picks while some allowed node is reached by nothing: g is 0 there, and above 0 everywhere else."""
    part = components(weights.starts, weights.columns)
    order = allowed[np.argsort(priority[allowed])]
    order = order[~np.isin(part[order], part[labeled])]
    first = np.unique(part[order], return_index=True)[1]  # of every component: it then is reached
    return order[np.sort(first)]


class _Spread:
    """g of a growing set of sources, with a bound on its error, and the columns that are solved already."""

    def __init__(self, weights: Affinity, sources: np.ndarray, alpha: float) -> None:
        self._weights, self._alpha = weights, alpha
        self._scale = np.sqrt(np.where(weights.degrees > 0, weights.degrees, 1))  # v; W v = v but for rounding
        growth = alpha * float((_product(weights, self._scale) / self._scale).max(initial=0))
        if growth >= 1:
            raise ValueError(f"alpha is {alpha}, too close to 1 for weights in float32")
        self._gain = 1 / (1 - growth)
        self._delta = np.zeros(weights.count)
        self._delta[sources] = 1
        self._columns: dict[int, tuple[np.ndarray, float]] = {}  # A^-1 e_p, and what bounds its error
        self.g = np.zeros(weights.count)
        self._refine()

    def least(self, open_: np.ndarray, priority: np.ndarray) -> int:
        """The open node of least g; of those that tie, the one of least priority."""
        for attempt in range(ATTEMPTS):
            near, certain = _contenders(self.g, self._scale, self._gain * self._error, open_, TIE)
            if certain or attempt == ATTEMPTS - 1:
                break
            self._refine()
        return int(near[priority[near].argmin()])

    def add(self, node: int, open_: np.ndarray, left: int) -> None:
        """Make the node a source; `left` columns will be needed at most, this one among them."""
        if node not in self._columns:
            self._solve_block(node, open_, left)
        column, error = self._columns.pop(node)
        self.g += column
        self._error += error
        self._delta[node] = 1

    def _solve_block(self, node: int, open_: np.ndarray, left: int) -> None:
        room = max(KEPT // (8 * len(self.g)), 64) - len(self._columns)
        if room < panel.width_of(len(self.g)):
            self._columns.clear()
        width = min(left, panel.width_of(len(self.g)))
        known = np.array([node, *self._columns], np.int64)
        nodes = [node, *_likely(self._weights, self.g, open_, known, width - 1).tolist()]
        y = np.zeros((len(self.g), len(nodes)))
        y[nodes, np.arange(len(nodes))] = 1

        def take(place: int, z: np.ndarray, residual: np.ndarray) -> None:
            self._columns[nodes[place]] = z.copy(), float(np.abs(residual / self._scale).max())

        panel.solve_columns(self._weights, y, *_settings(len(nodes), self._alpha), take)
        self._measure()

    def _measure(self) -> np.ndarray:
        """The residual of g, worked out anew, and what it leaves open."""
        residual = self._delta - (self.g - self._alpha * _product(self._weights, self.g))
        self._error = float(np.abs(residual / self._scale).max())
        return residual

    def _refine(self) -> None:
        def take(place: int, z: np.ndarray, residual: np.ndarray) -> None:
            self.g += z

        left = self._delta - (self.g - self._alpha * _product(self._weights, self.g))
        panel.solve_columns(self._weights, left[:, None].copy(), *_settings(1, self._alpha), take)
        self._measure()


def _settings(columns: int, alpha: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.full(columns, alpha), np.full(columns, TOL), np.full(columns, np.inf)


def _product(weights: Affinity, x: np.ndarray) -> np.ndarray:
    """W x, float64."""
    out = np.empty(len(x))
    blocks.map_blocks(
        lambda a, b: _product_rows(weights.starts, weights.columns, weights.values, x, out, a, b), len(x), panel.ROWS
    )
    return out


@compiled
def _product_rows(
    starts: np.ndarray, columns: np.ndarray, values: np.ndarray, x: np.ndarray, out: np.ndarray, start: int, stop: int
) -> None:
    for i in range(start, stop):
        total = 0.0
        for e in range(starts[i], starts[i + 1]):
            total += np.float64(values[e]) * x[columns[e]]
        out[i] = total


@compiled
def _contenders(
    g: np.ndarray, scale: np.ndarray, error: float, open_: np.ndarray, tie: float
) -> tuple[np.ndarray, bool]:
    """Open nodes within `tie` of the least g, and whether that is certain when g is `scale` * `error` off at most."""
    least, below, above = np.inf, np.inf, np.inf
    for i in range(len(g)):
        if open_[i]:
            least = min(least, g[i])
            below = min(below, g[i] - scale[i] * error)  # the true least lies between these
            above = min(above, g[i] + scale[i] * error)
    near, count = np.empty(len(g), np.int64), 0
    apart, tied = True, True  # all others are certainly no ties; all of these certainly are
    for i in range(len(g)):
        if open_[i] and g[i] - scale[i] * error <= above * (1 + tie):
            if g[i] <= least * (1 + tie):
                near[count] = i
                count += 1
                tied &= g[i] + scale[i] * error <= below * (1 + tie)
            else:
                apart = False
    return near[:count], apart and (tied or count == 1)


def _likely(weights: Affinity, g: np.ndarray, open_: np.ndarray, known: np.ndarray, count: int) -> np.ndarray:
    """(<= count,) nodes that may be picked soon: of low g, and no neighbors, since a pick raises those around it."""
    nodes = np.flatnonzero(open_)
    if len(nodes) > _LOOK * (count + len(known)):
        nodes = nodes[np.argpartition(g[nodes], _LOOK * (count + len(known)) - 1)[: _LOOK * (count + len(known))]]
    nodes = nodes[np.lexsort((nodes, g[nodes]))]
    return _spaced(weights.starts, weights.columns, nodes, known, len(g), count)


@compiled
def _spaced(
    starts: np.ndarray, columns: np.ndarray, nodes: np.ndarray, known: np.ndarray, size: int, count: int
) -> np.ndarray:
    """The first `count` of the nodes of which none is a neighbor of one before; known ones are passed over."""
    near, old = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
    old[known] = True
    out, found = np.empty(count, np.int64), 0
    for node in nodes:
        if found == count:
            break
        if near[node]:
            continue
        for e in range(starts[node], starts[node + 1]):
            near[columns[e]] = True
        if not old[node]:
            out[found] = node
            found += 1
    return out[:found]
