"""Shared first fits: one fit per content, equal bits for all, and nobody stopped by one that fails or is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_al.core.labeled_set import LabeledSet
from ray_al.core.oracle import TruthOracle
from ray_al.core.pool import Pool
from ray_al.core.protocol import Protocol
from ray_al.core.query import NONE, PseudoLabels
from ray_al.core.seeds import stream
from ray_al.core.trajectory import Trajectory, run_trajectory
from ray_al.data.artifacts import ArtifactStore
from ray_al.data.fits import StoredFits
from ray_al.learners.cnn import Cnn
from ray_al.storage import Storage
from ray_al.strategies.random import Random
from tests.fakes import Toy, toy_pool

SOURCE = (3, "init-weights", 0)
IDENTITY = {"dataset": "dataset-0", "learner": {"name": "prior", "version": 1}}


@dataclass
class Prior:
    """Predicts class shares plus noise from its stream; counts its fits."""

    fits: int = 0
    loads: int = 0

    def fit(self, labeled: LabeledSet, assume: PseudoLabels, pool: Pool, rng: np.random.Generator) -> Any:
        self.fits += 1
        counts = np.bincount(np.r_[labeled.labels, assume.labels], minlength=pool.classes)
        return Shares(counts + rng.random(pool.classes), pool)

    def save(self, model: Any) -> bytes:
        return bytes(model.weights.tobytes())

    def load(self, saved: bytes, pool: Pool) -> Any:
        self.loads += 1
        return Shares(np.frombuffer(saved), pool)


@dataclass
class Shares:
    weights: np.ndarray
    pool: Pool

    def output(self, head: str, ids: np.ndarray | None = None, split: str = "pool") -> np.ndarray:
        rows = self.pool.test_size if split == "test" else self.pool.size if ids is None else len(ids)
        return np.tile(self.weights / self.weights.sum(), (rows, 1))


@pytest.fixture(scope="module")
def toy() -> Toy:
    return toy_pool()


def stored(folder: Path, toy: Toy, learner: Any = None, identity: Any = IDENTITY) -> StoredFits:
    return StoredFits(ArtifactStore(Storage.open(folder)), learner or Prior(), toy.pool, identity)


def ask(fits: StoredFits, toy: Toy, labeled: LabeledSet | None = None, assume: PseudoLabels = NONE) -> tuple[Any, bool]:
    given = labeled or toy.labeled
    return fits(given, assume, SOURCE, lambda: fits.learner.fit(given, assume, toy.pool, stream(*SOURCE)))


def test_the_second_takes_the_firsts_model(tmp_path: Path, toy: Toy) -> None:
    first, second = stored(tmp_path, toy), stored(tmp_path, toy)
    (made, own), (read, shared) = ask(first, toy), ask(second, toy)
    assert (own, shared) == (False, True)
    assert (first.learner.fits, second.learner.fits, second.learner.loads) == (1, 0, 1)
    assert np.array_equal(made.weights, read.weights)


@pytest.mark.parametrize(
    "change",
    [
        {"labeled": LabeledSet(np.arange(40)[::-1].copy(), np.zeros(40, np.int64))},
        {"labeled": LabeledSet(np.arange(39), np.zeros(39, np.int64))},
        {"labeled": LabeledSet(np.arange(40), np.ones(40, np.int64))},
        {"assume": PseudoLabels(np.array([60]), np.array([1]))},
        {"assume": PseudoLabels(np.array([60]), np.array([2]))},
        {"source": (4, "init-weights", 0)},
        {"source": (3, "init-weights", 1)},
        {"identity": {**IDENTITY, "dataset": "dataset-1"}},
        {"identity": {**IDENTITY, "learner": {"name": "prior", "version": 2}}},
    ],
)
def test_other_content_is_another_fit(tmp_path: Path, toy: Toy, change: dict[str, Any]) -> None:
    plain = LabeledSet(np.arange(40), np.zeros(40, np.int64))
    fits = stored(tmp_path, toy, identity=change.get("identity", IDENTITY))
    ask(stored(tmp_path, toy), toy, plain)
    given, assume = change.get("labeled", plain), change.get("assume", NONE)
    source = change.get("source", SOURCE)
    _, shared = fits(given, assume, source, lambda: fits.learner.fit(given, assume, toy.pool, stream(*source)))
    assert not shared
    assert fits.learner.fits == 1


def test_a_fit_that_fails_leaves_nothing_and_the_next_one_fits(tmp_path: Path, toy: Toy) -> None:
    @dataclass
    class Unlucky(Prior):
        def fit(self, *arguments: Any) -> Any:
            raise FloatingPointError("the loss is nan")

    with pytest.raises(FloatingPointError, match="the loss is nan"):
        ask(stored(tmp_path, toy, Unlucky()), toy)
    assert not list((tmp_path / "artifacts").glob("fit-*"))
    assert ask(stored(tmp_path, toy), toy)[1] is False


def test_a_damaged_model_is_fitted_again(tmp_path: Path, toy: Toy) -> None:
    made, _ = ask(stored(tmp_path, toy), toy)
    (file,) = (tmp_path / "artifacts").glob("fit-*/model.bin")
    file.write_bytes(b"x")
    with pytest.warns(RuntimeWarning, match="is damaged"):
        again, shared = ask(stored(tmp_path, toy), toy)
    assert not shared
    assert np.array_equal(again.weights, made.weights)


def test_a_storage_that_cannot_be_written_stops_nobody(
    tmp_path: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = stored(tmp_path, toy)

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    model, shared = ask(fits, toy)
    assert (shared, fits.learner.fits) == (False, 1), "what was fitted before the disk was full is used"
    assert model.weights.shape == (4,)


def test_what_another_machine_stored_first_is_what_all_go_on_with(tmp_path: Path, toy: Toy) -> None:
    """Without locks two fit at once, and on other hardware the last bits differ: the stored model counts."""
    fits = stored(tmp_path, toy)

    def late() -> Any:
        rival = stored(tmp_path, toy)
        theirs = rival.learner.fit(toy.labeled, NONE, toy.pool, stream(9, "init-weights"))
        published = threading.Thread(target=lambda: rival(toy.labeled, NONE, SOURCE, lambda: theirs))
        with pytest.MonkeyPatch.context() as patch:
            import contextlib

            patch.setattr("ray_al.data.artifacts.exclusive", lambda *_: contextlib.nullcontext(False))
            published.start()
            published.join()
        return fits.learner.fit(toy.labeled, NONE, toy.pool, stream(*SOURCE))

    model, shared = fits(toy.labeled, NONE, SOURCE, late)
    assert shared
    assert np.array_equal(model.weights, ask(stored(tmp_path, toy), toy)[0].weights)


@dataclass
class Slow(Prior):
    """Says that it has started, and takes its time."""

    flag: Path = field(default=Path())
    seconds: float = 0.0

    def fit(self, *arguments: Any) -> Any:
        with self.flag.open("a") as file:
            file.write("x")
        time.sleep(self.seconds)
        return super().fit(*arguments)


def _fit_slowly(folder: Path, seconds: float) -> None:
    toy = toy_pool()
    ask(stored(folder, toy, Slow(flag=folder / "started", seconds=seconds)), toy)


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.exists()


def test_two_at_once_fit_once(tmp_path: Path, toy: Toy) -> None:
    start = multiprocessing.get_context("spawn").Process
    others = [start(target=_fit_slowly, args=(tmp_path, 0.5)) for _ in range(2)]
    for process in others:
        process.start()
    for process in others:
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "started").read_text() == "x"
    assert ask(stored(tmp_path, toy), toy)[1] is True


def test_a_killed_builder_blocks_nobody(tmp_path: Path, toy: Toy) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_fit_slowly, args=(tmp_path, 600.0))
    process.start()
    _wait_for(tmp_path / "started")
    threading.Timer(0.3, os.kill, (process.pid, signal.SIGKILL)).start()
    fits = stored(tmp_path, toy)
    assert ask(fits, toy)[1] is False  # it waited for the lock, and then fitted itself
    assert fits.learner.fits == 1
    process.join(60)
    assert not [path for path in (tmp_path / "artifacts").iterdir() if path.suffix == ".tmp"]


# In the loop


def run(toy: Toy, folder: Path | None, learner: Any, done: Any = (), **changes: Any) -> list[Any]:
    base = Trajectory(
        Random(), learner, Protocol(8, True, 4, 3), 3, toy.pool, TruthOracle(toy.labels), toy.test_labels,
        lambda model: None, share=stored(folder, toy, learner) if folder else None,
    )  # fmt: skip
    return list(run_trajectory(replace(base, **changes), done))


def metrics(records: list[Any]) -> list[tuple[float, ...]]:
    return [(r.accuracy, r.nll, r.ece, *r.asked_ids.tolist()) for r in records]


def test_the_first_round_alone_is_shared_and_nothing_else_changes(tmp_path: Path, toy: Toy) -> None:
    alone, first, second = Prior(), Prior(), Prior()
    expected = run(toy, None, alone)
    one, two = run(toy, tmp_path, first), run(toy, tmp_path, second)
    assert metrics(one) == metrics(two) == metrics(expected)
    assert [r.fit_shared for r in one] == [False] * 3
    assert [r.fit_shared for r in two] == [True, False, False]
    assert (alone.fits, first.fits, second.fits) == (3, 3, 2)
    assert len(list((tmp_path / "artifacts").glob("fit-*"))) == 1


def test_resuming_after_the_first_round_takes_the_stored_model(tmp_path: Path, toy: Toy) -> None:
    whole = run(toy, tmp_path, Prior())
    again = Prior()
    assert metrics(whole[:1] + run(toy, tmp_path, again, whole[:1])) == metrics(whole)
    assert (again.fits, again.loads) == (2, 1)


@pytest.mark.parametrize("protocol", [Protocol(0, False, 8, 2), Protocol.one_shot((8, 12))])
def test_fits_that_a_strategy_chose_are_not_stored(tmp_path: Path, toy: Toy, protocol: Protocol) -> None:
    run(toy, tmp_path, Prior(), protocol=protocol)
    assert not (tmp_path / "artifacts").exists()


def test_a_stored_network_gives_equal_bits(tmp_path: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray_al.learners import networks

    monkeypatch.setattr(networks, "FEWEST_STEPS", 12)
    cnn = Cnn(epochs=2, width=4, device="cpu")
    made, _ = ask(stored(tmp_path, toy, cnn), toy)
    read, shared = ask(stored(tmp_path, toy, cnn), toy)
    assert shared
    for head in ("probs", "embedding"):
        for split in ("pool", "test"):
            np.testing.assert_array_equal(made.output(head, split=split), read.output(head, split=split))
    with pytest.raises(ValueError, match="no network that cnn has saved"):
        cnn.load(b"\0" * 64, toy.pool)
    plain, shared_run = run(toy, None, cnn), run(toy, tmp_path, cnn)
    assert metrics(plain) == metrics(shared_run) == metrics(run(toy, tmp_path, cnn))
