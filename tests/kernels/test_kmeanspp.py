from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ray_al.kernels import drawing, kmeanspp
from ray_al.kernels.kmeanspp import badge
from tests.kernels.matrices import NO_IDS, distances, matrices


def gradient_embeddings(embedding, probs):
    """(N, C * D) float64, as BADGE defines them."""
    q = probs.astype(np.float64).copy()
    q[np.arange(len(q)), probs.argmax(1)] -= 1
    return (q[:, :, None] * embedding.astype(np.float64)[:, None]).reshape(len(q), -1)


def random_probs(rng, rows, classes):
    logits = 3 * rng.standard_normal((rows, classes))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probs.astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(matrices(), st.integers(1, 5), st.integers(0, 99), st.booleans(), st.data())
def test_distances_are_those_of_the_full_embedding(x, classes, seed, certain, data):
    rng = np.random.default_rng(seed)
    probs = random_probs(rng, len(x), classes)
    if certain:  # zero embeddings among the others
        probs[::2] = np.eye(classes, dtype=np.float32)[0]
    exclude = np.array(data.draw(st.lists(st.integers(0, len(x) - 1), max_size=len(x))), np.int64)
    left = len(x) - len(np.unique(exclude))
    k = data.draw(st.sampled_from(sorted({0, left // 2, left})))
    ids, squares = badge(x, probs, k, exclude, seed)
    assert len(np.unique(ids)) == k
    assert not np.isin(ids, exclude).any()
    g = gradient_embeddings(x, probs)
    table = np.square(distances(g, g))
    scale = np.square(g).sum(1).max() + 1e-30
    for i in range(1, k):
        assert squares[i] == pytest.approx(table[ids[i], ids[:i]].min(), rel=1e-3, abs=1e-12 * scale)
    if k:
        assert squares[0] == np.inf
        norms = np.square(g).sum(1)[np.setdiff1d(np.arange(len(x)), exclude)]
        assert np.square(g[ids[0]]).sum() >= norms.max() * (1 - 1e-5)


@pytest.mark.parametrize("since", [1, 9])
def test_distribution_is_that_of_the_plain_algorithm(since, monkeypatch):
    """Frequencies of the ordered triples, against their exact probabilities; a pass after every few picks or none."""
    monkeypatch.setattr(drawing, "PROPOSALS", 3)
    monkeypatch.setattr(kmeanspp, "draw", partial(drawing.draw, since=since))
    rng = np.random.default_rng(0)
    n, draws = 6, 2000
    embedding, probs = rng.standard_normal((n, 2)).astype(np.float32), random_probs(rng, n, 3)
    g = gradient_embeddings(embedding, probs)
    table = np.square(distances(g, g))
    exclude = np.array([2])
    free = np.setdiff1d(np.arange(n), exclude)
    expected = {}
    for a in free:
        for b in np.setdiff1d(free, [a]):
            chance = table[a, b] / table[a, free].sum() / len(free)
            left = np.minimum(table[a], table[b])[free]
            for c in np.setdiff1d(free, [a, b]):
                expected[(a, b, c)] = chance * min(table[a, c], table[b, c]) / left.sum()
    counts = dict.fromkeys(expected, 0)
    for seed in range(draws):
        counts[tuple(badge(embedding, probs, 3, exclude, seed, first="uniform")[0])] += 1
    keys = [key for key in expected if expected[key] * draws > 5]
    seen = [counts[key] for key in keys] + [draws - sum(counts[key] for key in keys)]
    want = [expected[key] * draws for key in keys]
    assert chisquare(seen, [*want, draws - sum(want)]).pvalue > 1e-4


def test_probs_by_blocks_give_the_same_answer():
    rng = np.random.default_rng(0)
    embedding, probs = rng.standard_normal((9000, 200)).astype(np.float32), random_probs(rng, 9000, 4)
    calls = []

    def rows(start, stop):
        calls.append(stop - start)
        return probs[start:stop]

    for a, b in zip(badge(embedding, probs, 40, NO_IDS, 1), badge(embedding, rows, 40, NO_IDS, 1), strict=True):
        np.testing.assert_array_equal(a, b)
    assert max(calls) < 9000


def test_all_zero_distances_are_drawn_uniformly():
    embedding, probs = np.ones((20, 3), np.float32), np.full((20, 2), 0.5, np.float32)
    runs = [badge(embedding, probs, 5, np.arange(10), seed) for seed in range(200)]
    counts = np.bincount(np.concatenate([ids for ids, _ in runs]), minlength=20)
    assert counts[:10].sum() == 0
    assert chisquare(counts[10:]).pvalue > 1e-4
    assert all((squares[1:] == 0).all() for _, squares in runs)
    assert all(len(set(ids)) == 5 for ids, _ in runs)


def test_bad_input_names_the_value():
    embedding, probs = np.ones((4, 2), np.float32), np.full((4, 2), 0.5, np.float32)
    with pytest.raises(ValueError, match="k is 5"):
        badge(embedding, probs, 5, NO_IDS, 0)
    with pytest.raises(ValueError, match=r"first is .* got 'longest'"):
        badge(embedding, probs, 1, NO_IDS, 0, first="longest")
    with pytest.raises(ValueError, match=r"probs .*does not fit"):
        badge(embedding, probs[:3], 1, NO_IDS, 0)
    for target, name in ((embedding, "embedding"), (probs, "probs")):
        bad = target.copy()
        bad[2, 1] = np.nan
        arrays = {"embedding": embedding, "probs": probs, name: bad}
        with pytest.raises(ValueError, match=f"{name} is nan at row 2"):
            badge(arrays["embedding"], arrays["probs"], 1, NO_IDS, 0)
