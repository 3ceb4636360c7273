"""A request's answer is bit-identical whatever it was fused with, and into however many shards the rows are cut."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_al.core.linear import Linear, LinearCommittee, LinearHead
from ray_al.kernels import passes
from ray_al.kernels.budget import Budget
from ray_al.kernels.kmeanspp import badge
from ray_al.kernels.passes import Rows
from ray_al.kernels.top_scores import top_k, uncertainty
from ray_al.services import known
from ray_al.services.known import KnownClusterings, KnownCoverages, Memory
from ray_al.services.pool_scorer import PoolScorer
from ray_al.services.shard import CoverageLost, Shard
from tests.fakes import ArrayReader

N, D = 5000, 96


def _reader(dtype: str, width: int = D) -> ArrayReader:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, width)) + 0.5
    x[100:110] = x[90:100]  # duplicates
    if dtype == "uint8":
        x = np.clip(20 * x + 100, 0, 255)
    return ArrayReader({("x", "pool"): x.astype(dtype), ("x", "test"): x[:7].astype(dtype)})


READERS = {dtype: _reader(dtype) for dtype in ("float32", "float16", "uint8")}
WIDE = {dtype: _reader(dtype, 512) for dtype in READERS}  # where products of other shapes have other bits
Call = Callable[[PoolScorer], Any]


def _head(rng: np.random.Generator, classes: int, width: int = D) -> LinearHead:
    weights = 0.1 * rng.standard_normal((classes, width))
    return LinearHead("x", weights.astype(np.float32), rng.standard_normal(classes).astype(np.float32))


def _committee(rng: np.random.Generator, classes: int, members: int, width: int = D) -> LinearCommittee:
    return LinearCommittee("x", tuple(_head(rng, classes, width) for _ in range(members)))


@st.composite
def calls(draw: st.DrawFn, width: int) -> Call:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    classes = draw(st.sampled_from([1, 2, 3, 10, 33, 100, 250]))
    members = draw(st.sampled_from([1, 2, 5]))  # with 250 classes, products far wider than a panel
    head: Linear = _head(rng, classes, width) if members == 1 else _committee(rng, classes, members, width)
    exclude = rng.permutation(N)[: rng.integers(0, 60)]
    k, seed = int(rng.integers(1, 40)), int(rng.integers(2**40))
    among = np.sort(rng.permutation(N)[:300]) if draw(st.booleans()) else None
    kind = draw(st.sampled_from(["entropy", "margin", "least_confidence", "kcenter", "badge", "probs", "sure"]))
    if kind == "kcenter":
        return lambda scorer: scorer.kcenter("x", k, exclude, exclude, seed, among)
    if kind == "badge":
        return lambda scorer: scorer.linear_badge(head, k, exclude, seed, "norm", among)
    if kind == "sure":
        likely, most = draw(st.sampled_from(["entropy", "margin", "least_confidence"])), float(rng.random())
        return lambda scorer: scorer.linear_confident(head, likely, most, exclude, among)
    if kind == "probs":
        return lambda scorer: (scorer.linear_probs(head, None, "pool"),)
    score = "bald" if isinstance(head, LinearCommittee) and draw(st.booleans()) else kind
    return lambda scorer: scorer.linear_top(head, score, k, exclude, seed, among)


def _at_once(scorer: PoolScorer, asked: list[Call]) -> list[Any]:
    answers: list[Any] = [None] * len(asked)
    ready = threading.Barrier(len(asked))

    def ask(place: int) -> None:
        ready.wait()
        answers[place] = asked[place](scorer)

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def _sharded(reader: ArrayReader, parts: int, memory: Memory | None = None) -> PoolScorer:
    cut = [Shard(reader, (i, parts), memory=memory) for i in range(parts)]
    return PoolScorer(reader, cut[0], cut)


def assert_equal(one: Any, other: Any) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@settings(max_examples=12, deadline=None)
@given(st.data(), st.sampled_from([D, 512]), st.sampled_from(sorted(READERS)), st.integers(2, 4))
def test_any_mix_of_calls_and_any_shards_give_the_bits_of_each_alone(data, width, dtype, parts):
    reader = (READERS if width == D else WIDE)[dtype]
    asked = data.draw(st.lists(calls(width), min_size=2, max_size=9))
    alone = [call(PoolScorer(reader)) for call in asked]  # a fresh scorer each: nothing is known from before
    together, shards = PoolScorer(reader), _sharded(reader, parts)
    for answers in (_at_once(together, asked), _at_once(together, asked), _at_once(shards, asked)):
        for one, other in zip(alone, answers, strict=True):
            assert_equal(one, other)


@pytest.mark.parametrize("kept", [True, False])
def test_a_committee_scores_as_its_members_outputs_do(monkeypatch, kept):
    if not kept:  # badge makes probabilities anew, block by block
        monkeypatch.setattr(known, "PROBS_BYTES", 0)
    scorer, rng = PoolScorer(READERS["float32"]), np.random.default_rng(0)
    committee, exclude = _committee(rng, 7, 3), np.arange(50)
    members = np.stack([scorer.linear_probs(head, None, "pool") for head in committee.heads])
    mean = scorer.linear_probs(committee, None, "pool")
    np.testing.assert_allclose(mean, members.mean(0), atol=1e-6)
    np.testing.assert_allclose(scorer.linear_probs(committee, None, "test"), mean[:7], atol=1e-6)
    for score, probs in (("bald", members), ("entropy", mean), ("margin", mean), ("least_confidence", mean)):
        ids, values = scorer.linear_top(committee, score, 20, exclude, 1)
        want = top_k(uncertainty(probs, score), 20, exclude, 1)
        np.testing.assert_allclose(values, want[1], atol=2e-6)
        np.testing.assert_allclose(uncertainty(probs, score)[ids], want[1], atol=2e-6)
    x = READERS["float32"].read("x", "pool")
    assert_equal(scorer.linear_badge(committee, 20, exclude, 1, "norm"), badge(x, mean, 20, exclude, 1, first="norm"))


@pytest.mark.parametrize(("width", "classes"), [(D, 10), (512, 10), (512, 17), (512, 200)])
def test_badge_has_the_same_bits_wherever_its_probabilities_are(width, classes):
    """Kept whole, in each shard's part, or made anew in every pass because there is no room for them."""
    reader = READERS["float32"] if width == D else WIDE["float32"]
    head = _head(np.random.default_rng(0), classes, width)
    scorers = [PoolScorer(reader), _sharded(reader, 3), _sharded(reader, 3, Memory(Budget(0)))]
    scorers.append(PoolScorer(reader, Shard(reader, memory=Memory(Budget(0)))))
    answers = [scorer.linear_badge(head, 60, np.arange(50), 1, "norm") for scorer in scorers]
    for answer in answers[1:]:
        assert_equal(answers[0], answer)


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_selection_that_one_shard_cannot_begin_is_closed_at_the_others(broken):
    """What they hold for it would stay for an hour. The coverage of a shard that is slow to begin is closed, too."""
    reader, closed = READERS["float32"], []

    class Slow(Shard):
        def coverage(self, task):
            place = self._place[0]
            time.sleep(0.05 * place)
            if place == broken:
                raise MemoryError("none left")
            return SimpleNamespace(close=lambda whole: closed.append((place, whole)))

    cut = [Slow(reader, (place, 3)) for place in range(3)]
    with pytest.raises(MemoryError, match="none left"):
        PoolScorer(reader, cut[0], cut).kcenter("x", 3, np.arange(2), np.arange(0), 0)
    deadline = time.monotonic() + 20
    while len(closed) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(closed) == [(place, False) for place in range(3) if place != broken]


def test_selections_among_some_items_share_the_room_for_probabilities():
    budget, taken = Budget(2**20), []
    take = budget.take
    budget.take = lambda size: (taken.append(size), take(size))[1]  # type: ignore[method-assign]
    scorer = PoolScorer(READERS["float32"], Shard(READERS["float32"], memory=Memory(budget)))
    scorer.linear_badge(_head(np.random.default_rng(0), 10), 5, np.arange(9), 1, "norm", np.arange(400))
    assert taken == [400 * 10 * 4]
    assert budget._left == 2**20


def test_waiting_passes_become_one():
    seen: list[tuple[int, int]] = []
    rows = Rows(READERS["float32"].read("x", "pool"), observe=lambda waited, size: seen.append((len(waited), size)))
    inside, others = threading.Event(), threading.Event()

    def first(block: passes.Block, product: Any) -> int:
        inside.set()
        others.wait(10)
        return block.start

    def start(work: Any) -> threading.Thread:
        thread = threading.Thread(target=rows.sweep, args=(work,))
        thread.start()
        return thread

    threads = [start(first)]
    inside.wait(10)
    threads += [start(lambda block, product: block.stop) for _ in range(5)]
    while len(rows._fuse._waiting.get(None, ())) < 5:
        pass
    others.set()
    for thread in threads:
        thread.join()
    assert seen == [(1, N * D * 4), (5, N * D * 4)]


def test_a_failing_call_disturbs_no_other():
    scorer = PoolScorer(READERS["float32"])
    good = _head(np.random.default_rng(0), 10)
    huge = LinearHead("x", np.full((10, D), 3e38, np.float32), np.zeros(10, np.float32))
    want = PoolScorer(READERS["float32"]).linear_top(good, "entropy", 5, np.arange(3), 1)
    caught: list[str] = []

    def fail(scorer: PoolScorer) -> None:
        with pytest.raises(ValueError, match="logits of row"):
            scorer.linear_top(huge, "entropy", 5, np.arange(3), 1)
        caught.append("yes")

    asked: list[Call] = [fail, lambda s: s.linear_top(good, "entropy", 5, np.arange(3), 1), fail]
    for _ in range(5):
        assert_equal(_at_once(scorer, asked)[1], want)
    assert len(caught) == 10


def test_where_products_depend_on_their_width_each_call_has_its_own(monkeypatch):
    """As on a machine whose products have other bits for other widths: only rough products are fused."""
    monkeypatch.setattr(passes, "columns_are_stable", lambda width, rows: False)
    reader = READERS["float32"]
    rng = np.random.default_rng(3)
    heads = [_head(rng, 10) for _ in range(4)]
    asked: list[Call] = [lambda s, h=h: s.linear_top(h, "margin", 20, np.arange(9), 5) for h in heads]  # type: ignore[misc]
    asked += [lambda s: s.kcenter("x", 30, np.arange(9), np.arange(9), 5)] * 2
    widths = []
    product = passes._Group.product

    def counted(self: Any, block: passes.Block) -> Any:
        if not self.rough:
            widths.append(len(self.members))
        return product(self, block)

    monkeypatch.setattr(passes._Group, "product", counted)
    for one, other in zip(
        [call(PoolScorer(reader)) for call in asked], _at_once(PoolScorer(reader), asked), strict=True
    ):
        assert_equal(one, other)
    assert max(widths) == 1


def test_k_center_goes_on_from_the_last_round_with_the_same_picks(monkeypatch):
    reader = READERS["float32"]
    scorer, labeled = PoolScorer(reader), np.arange(40, 50)
    covered: list[int] = []
    cover = known.KnownCoverages.longest

    def spy(self: KnownCoverages, space: str, centers: np.ndarray) -> Any:
        best, count = cover(self, space, centers)
        covered.append(count)
        return best, count

    monkeypatch.setattr(known.KnownCoverages, "longest", spy)
    for seed in range(4):
        picks, far = scorer.kcenter("x", 30, labeled, labeled, seed)
        assert_equal(PoolScorer(reader).kcenter("x", 30, labeled, labeled, seed), (picks, far))
        labeled = np.concatenate([labeled, picks])
    assert covered[0] == 0
    assert all(count >= 10 for count in covered[2::2])  # of the scorer; the fresh ones know nothing
    assert covered[1::2] == [0] * 4


def test_what_is_known_stays_within_its_memory():
    kept = KnownCoverages(limit=10 * 800)
    for i in range(50):
        kept.keep("x", 0, np.arange(i), np.zeros(100))
    assert sum(best.nbytes for best in kept._kept.values()) <= 8000
    best, count = kept.longest("x", np.arange(200))
    assert count == 49
    best[:] = 7  # a copy
    assert (kept.longest("x", np.arange(200))[0] == 0).all()
    assert kept.longest("y", np.arange(200)) == (None, 0)
    assert kept.longest("x", np.arange(200)[::-1]) == (None, 0)
    kept.keep("x", 49, np.arange(60), np.zeros(100))  # takes the place of what it began with
    assert kept.longest("x", np.arange(59))[1] == 48


def test_a_selection_that_a_shard_lost_begins_anew_and_leaves_nothing_behind():
    reader = READERS["float32"]
    want = PoolScorer(reader).kcenter("x", 900, np.arange(9), np.arange(9), 1)
    opened, closed = [], []

    class Part(Shard):
        times = 0

        def coverage(self, task: Any) -> Any:
            coverage = super().coverage(task)
            opened.append(coverage)
            close, cover = coverage.close, coverage.cover
            coverage.close = lambda whole: (closed.append(coverage), close(whole))[1]  # type: ignore[method-assign]
            self.times += 1
            if self._place[0] == 1 and self.times < 3:  # the second shard forgets, twice

                def lose(ids: np.ndarray) -> None:
                    cover(ids)
                    raise CoverageLost("started again")

                coverage.cover = lose  # type: ignore[method-assign]
            return coverage

    parts = [Part(reader, (i, 2)) for i in range(2)]
    assert_equal(PoolScorer(reader, parts[0], parts).kcenter("x", 900, np.arange(9), np.arange(9), 1), want)
    assert len(opened) == 6
    assert set(map(id, closed)) == set(map(id, opened))


@pytest.mark.parametrize("parts", [1, 2])
def test_a_selection_that_failed_leaves_no_distances_behind(parts):
    """A pass fails half-way, or a shard goes while another is half-way: what had been reached is not known."""
    reader = READERS["float32"]
    want = PoolScorer(reader).kcenter("x", 900, np.arange(9), np.arange(9), 1)
    half, failed = threading.Event(), threading.Event()

    class Failing(Shard):
        def coverage(self, task: Any) -> Any:
            coverage = super().coverage(task)
            cover, best = coverage.cover, coverage._best

            def work(ids: np.ndarray) -> None:
                if failed.is_set():
                    return cover(ids)
                if self._place == (0, 2):
                    half.wait(10)
                    failed.set()
                    raise CoverageLost("started again")
                best[:] = 0
                half.set()
                if parts == 1:
                    failed.set()
                    raise MemoryError("no room")
                failed.wait(10)
                time.sleep(0.2)  # it is at work when the selection begins anew
                return None

            coverage.cover = work
            return coverage

    cut = [Failing(reader, (i, parts)) for i in range(parts)]
    scorer = PoolScorer(reader, cut[-1], cut)
    if parts == 1:
        with pytest.raises(MemoryError):
            scorer.kcenter("x", 900, np.arange(9), np.arange(9), 1)
    for _ in range(2):
        assert_equal(scorer.kcenter("x", 900, np.arange(9), np.arange(9), 1), want)


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_shards_cut_the_rows_at_blocks_and_miss_none(parts):
    x = READERS["float32"].read("x", "pool")
    cuts = [Rows(x, (i, parts)) for i in range(parts)]
    assert cuts[0].start == 0
    assert cuts[-1].stop == N
    assert all(a.stop == b.start and b.start % b.block == 0 for a, b in itertools.pairwise(cuts))


def test_among_restricts_to_the_items_named():
    scorer, rng = PoolScorer(READERS["float32"]), np.random.default_rng(0)
    head, among = _head(rng, 10), np.sort(rng.permutation(N)[:200])
    exclude = np.concatenate([among[::3], np.array([1, 2])])
    every = np.setdiff1d(np.arange(N), among)
    want = scorer.linear_top(head, "entropy", 20, np.concatenate([exclude, every]), 1)
    found = scorer.linear_top(head, "entropy", 20, exclude, 1, among)
    np.testing.assert_array_equal(found[0], want[0])
    committee = _committee(rng, 10, 3)
    want = scorer.linear_top(committee, "bald", 20, np.concatenate([exclude, every]), 1)
    found = scorer.linear_top(committee, "bald", 20, exclude, 1, among)
    np.testing.assert_array_equal(found[0], want[0])
    want = scorer.kcenter("x", 20, exclude, np.concatenate([exclude, every]), 1)
    found = scorer.kcenter("x", 20, exclude, exclude, 1, among)
    np.testing.assert_allclose(found[1], want[1], rtol=1e-4)
    assert np.isin(found[0], np.setdiff1d(among, exclude)).all()
    ids, _ = scorer.linear_badge(head, 20, exclude, 1, "norm", among)
    assert np.isin(ids, np.setdiff1d(among, exclude)).all()
    assert scorer.kmeans("x", 4, 0, among).shape == (200,)
    with pytest.raises(ValueError, match="ascending"):
        scorer.linear_top(head, "entropy", 20, exclude, 1, among[::-1])
    with pytest.raises(ValueError, match="k is 201"):
        scorer.linear_top(head, "entropy", 201, np.empty(0, np.int64), 1, among)


def test_a_clustering_is_made_once_while_there_is_room() -> None:
    known, made = KnownClusterings(100), []

    def make(key: str, size: int) -> np.ndarray:
        return known.get(key, lambda: made.append(key) or np.zeros(size, np.uint8))  # type: ignore[func-returns-value]

    for key in ("a", "b", "a", "b"):
        make(key, 40)
    assert made == ["a", "b"]
    make("c", 40)  # takes the place of "a", which was asked for longest ago
    assert make("b", 40).sum() == 0
    assert made == ["a", "b", "c"]
    make("a", 40)
    make("large", 1000)  # more than there is room for: given, not kept
    make("large", 1000)
    assert made == ["a", "b", "c", "a", "large", "large"]


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("score", ["entropy", "margin", "least_confidence"])
def test_confident_items_and_their_classes_are_those_of_the_probabilities(members, score):
    rng = np.random.default_rng(0)
    head: Linear = _head(rng, 5) if members == 1 else _committee(rng, 5, members)
    exclude, scorer = rng.permutation(N)[:400], PoolScorer(READERS["float32"])
    probs = scorer.linear_probs(head, None, "pool")
    values = uncertainty(probs, score)
    bar = float(np.sort(values)[700]) + 1e-4  # between two values, for those of the pass differ in the last bits
    want = np.setdiff1d(np.flatnonzero(values <= bar), exclude)
    ids, classes = scorer.linear_confident(head, score, bar, exclude)
    assert abs(len(ids) - len(want)) <= 2
    assert np.isin(ids, want).mean() > 0.99
    assert np.array_equal(classes, probs[ids].argmax(1))
    assert np.array_equal(scorer.probs_confident(probs, score, bar, exclude)[0], want)
    among = np.sort(rng.permutation(N)[:900])
    inside = np.isin(ids, among)
    some = scorer.linear_confident(head, score, bar, exclude, among)
    assert np.array_equal(some[0], ids[inside])
    assert np.array_equal(some[1], classes[inside])
    none = scorer.linear_confident(head, score, -1.0, exclude)
    assert len(none[0]) == len(none[1]) == 0
    with pytest.raises(ValueError, match="exclude holds id 5000"):
        scorer.linear_confident(head, score, bar, np.array([N]))
