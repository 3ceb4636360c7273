"""The kernels as ray-al, plain numpy and scikit-activeml run them, and what their picks are worth."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

CLASSES, LABELED, NEIGHBORS, MAX_CLUSTERS, AT_ONCE = 10, 100, 5, 500, 16


class Size(NamedTuple):
    n: int
    d: int
    b: int


class Task(NamedTuple):
    x: np.ndarray  # (N, d) float32
    labeled: np.ndarray  # ids
    labels: np.ndarray  # of those
    weights: np.ndarray  # (C, d)
    bias: np.ndarray
    b: int


def make_task(size: Size) -> Task:
    """A mixture of 50 Gaussians of unequal weight, and a head fitted to 100 labels."""
    from ray_al.kernels.logistic import fit_logistic

    rng = np.random.default_rng(0)
    centers = rng.standard_normal((50, size.d), dtype=np.float32)
    component = rng.choice(50, size.n, p=rng.dirichlet(np.ones(50)))
    x = rng.standard_normal((size.n, size.d), dtype=np.float32)
    for start in range(0, size.n, 8192):  # no second copy of x: it would count in the peak
        x[start : start + 8192] += centers[component[start : start + 8192]]
    labeled = rng.permutation(size.n)[:LABELED]
    labels = component[labeled] % CLASSES
    labels[:CLASSES] = np.arange(CLASSES)
    head = fit_logistic([(x[labeled], labels)], CLASSES)[0]
    return Task(x, labeled, labels, head.weights, head.bias, size.b)


def cluster_count(task: Task) -> int:
    return min(LABELED + task.b, MAX_CLUSTERS)


def pick_typical(task: Task, assignment: np.ndarray, typical: Callable[[list[np.ndarray]], list[np.ndarray]]):
    """TypiClust's choice: the most typical item of the largest clusters with the fewest labels, in turn."""
    count = int(assignment.max()) + 1
    covered = np.bincount(assignment[task.labeled], minlength=count)
    groups = [np.flatnonzero(assignment == cluster) for cluster in range(count)]
    order = np.lexsort(([-len(group) for group in groups], covered))
    values = typical(groups)
    queues = []
    for cluster in order:
        ranked = groups[cluster][np.argsort(-values[cluster], kind="stable")]
        queues.append(ranked[~np.isin(ranked, task.labeled)])
    picks = [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]
    return np.array(picks[: task.b])


def ours(kernel: str, task: Task) -> np.ndarray:
    from ray_al.kernels.kcenter import kcenter_greedy
    from ray_al.kernels.kmeans import kmeans
    from ray_al.kernels.kmeanspp import badge
    from ray_al.kernels.top_scores import linear_probs, linear_uncertainty, top_k
    from ray_al.kernels.typicality import typicality

    if kernel == "entropy":
        return top_k(linear_uncertainty(task.x, task.weights, task.bias, "entropy"), task.b, task.labeled, 0)[0]
    if kernel == "kcenter_greedy":
        return kcenter_greedy(task.x, task.b, task.labeled, task.labeled, 0)[0]
    if kernel == "badge":
        return badge(task.x, linear_probs(task.x, task.weights, task.bias), task.b, task.labeled, 0)[0]
    assignment = kmeans(task.x, cluster_count(task), 0)[0]
    return pick_typical(task, assignment, lambda groups: typicality(task.x, groups, NEIGHBORS))


def naive_probs(task: Task) -> np.ndarray:
    logits = task.x @ task.weights.T + task.bias
    probs = np.exp(logits - logits.max(1, keepdims=True))
    return probs / probs.sum(1, keepdims=True)


def naive(kernel: str, task: Task) -> np.ndarray:
    """The algorithm as it is written in numpy with care: distances by norms and one product a pick, kept and lowered.

    BADGE's gradients stay factorized. k-means is scikit-learn's.
    """
    x, rng = task.x, np.random.default_rng(0)
    if kernel == "entropy":
        probs = naive_probs(task)
        entropy = -(probs * np.log(np.maximum(probs, 1e-12))).sum(1)
        entropy[task.labeled] = -np.inf
        return np.argsort(-entropy)[: task.b]
    if kernel == "typiclust":
        from sklearn.cluster import KMeans
        from sklearn.metrics import pairwise_distances

        def typical(groups):
            tables = (np.sort(pairwise_distances(x[group]), 1)[:, 1 : NEIGHBORS + 1] for group in groups)
            return [1 / (table.mean(1) if table.size else np.ones(len(table))) for table in tables]

        return pick_typical(task, KMeans(cluster_count(task), n_init=1, random_state=0).fit_predict(x), typical)
    norms = np.einsum("nd,nd->n", x, x)
    if kernel == "badge":
        q = naive_probs(task)
        q[np.arange(len(x)), q.argmax(1)] -= 1
        norms *= np.einsum("nc,nc->n", q, q)
        squares = lambda pick: norms + norms[pick] - 2 * (x @ x[pick]) * (q @ q[pick])  # noqa: E731
        picks = [int(norms.argmax())]
        best = np.maximum(squares(picks[0]), 0)
    else:
        squares = lambda pick: norms + norms[pick] - 2 * (x @ x[pick])  # noqa: E731
        picks = []
        best = np.full(len(x), np.inf, np.float32)
        for center in task.labeled:
            best = np.minimum(best, squares(center))
    while len(picks) < task.b:
        best[task.labeled] = best[picks] = 0
        total = best.sum(dtype=np.float64)
        picks.append(int(best.argmax() if kernel == "kcenter_greedy" else rng.choice(len(x), p=best / total)))
        best = np.minimum(best, np.maximum(squares(picks[-1]), 0))
    return np.array(picks)


def ours_at_once(kernel: str, task: Task) -> Callable[[], list[np.ndarray]]:
    """As many trajectories as AT_ONCE, each with labels and a head of its own, through one pool scorer."""
    from concurrent.futures import ThreadPoolExecutor

    from ray_al.core.linear import LinearHead
    from ray_al.services.pool_scorer import PoolScorer

    class Reader:
        def read(self, space: str, split: str) -> np.ndarray:
            return task.x

    scorer, rng = PoolScorer(Reader()), np.random.default_rng(1)
    labeled = [rng.permutation(len(task.x))[:LABELED] for _ in range(AT_ONCE)]
    weights = [task.weights + 0.01 * rng.standard_normal(task.weights.shape) for _ in range(AT_ONCE)]
    heads = [LinearHead("x", w.astype(np.float32), task.bias) for w in weights]

    def one(turn: int) -> np.ndarray:
        ids = labeled[turn]
        if kernel == "entropy":
            return scorer.linear_top(heads[turn], "entropy", task.b, ids, turn)[0]
        if kernel == "kcenter_greedy":
            return scorer.kcenter("x", task.b, ids, ids, turn)[0]
        if kernel == "badge":
            return scorer.linear_badge(heads[turn], task.b, ids, turn, "norm")[0]
        assignment = scorer.kmeans("x", cluster_count(task), turn)
        return pick_typical(task, assignment, lambda groups: scorer.typicality("x", groups, NEIGHBORS))

    def work() -> list[np.ndarray]:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return list(threads.map(one, range(AT_ONCE)))

    return work


def theirs(kernel: str, task: Task) -> Callable[[], np.ndarray]:
    """scikit-activeml's query, its classifier fitted beforehand."""
    from skactiveml.classifier import SklearnClassifier
    from skactiveml.pool import Badge, CoreSet, TypiClust, UncertaintySampling
    from sklearn.linear_model import LogisticRegression

    y = np.full(len(task.x), np.nan)
    y[task.labeled] = task.labels
    if kernel == "kcenter_greedy":
        return partial(CoreSet(random_state=0).query, task.x, y, batch_size=task.b)
    if kernel == "typiclust":
        settings = {"n_init": 1, "random_state": 0}
        strategy = TypiClust(random_state=0, cluster_algo_dict=settings, k=NEIGHBORS)
        return partial(strategy.query, task.x, y, batch_size=task.b)
    classifier = SklearnClassifier(LogisticRegression(max_iter=1000), classes=range(CLASSES)).fit(task.x, y)
    strategy = UncertaintySampling(method="entropy", random_state=0) if kernel == "entropy" else Badge(random_state=0)
    return partial(strategy.query, task.x, y, classifier, fit_clf=False, batch_size=task.b)


def score(kernel: str, task: Task, picks: np.ndarray) -> float:
    from ray_al.kernels.geometry import Euclidean, GradientEmbedding
    from ray_al.kernels.top_scores import linear_probs, linear_uncertainty

    if kernel == "entropy":
        return float(linear_uncertainty(task.x[picks], task.weights, task.bias, "entropy").mean())
    probs = linear_probs(task.x, task.weights, task.bias)
    space = GradientEmbedding(task.x, probs) if kernel == "badge" else Euclidean(task.x)
    best = np.full(len(task.x), np.inf)
    space.cover(best, np.concatenate([picks, task.labeled]) if kernel == "kcenter_greedy" else np.asarray(picks))
    if kernel == "badge":
        return float(best.mean())
    return float(np.sqrt(best.max() if kernel == "kcenter_greedy" else best).mean())


# What to time: a function of the kernel and the task that gives a call without arguments.
PREPARE: dict[str, Callable[[str, Task], Callable[[], Any]]] = {
    "ray-al": lambda kernel, task: partial(ours, kernel, task),
    "16 at once": ours_at_once,
    "numpy": lambda kernel, task: partial(naive, kernel, task),
    "scikit-activeml": theirs,
}
