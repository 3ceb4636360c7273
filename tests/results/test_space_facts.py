"""The report's section on spaces: from a sweep's folder and artifacts, and without them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ray_al.assemble import run_locally
from ray_al.config import parse_sweep
from ray_al.experiment import Sweep
from ray_al.results.covering import RADIUS
from ray_al.results.report import write_report
from ray_al.results.schema import record_row, to_table
from ray_al.results.spaces_section import Agreement, Scatter, SpaceFacts, spaces_section
from ray_al.space_facts import FILE, describe_spaces, space_facts
from ray_al.storage import Storage
from tests.results.test_report import Page, headings
from tests.results.test_report_browser import BROWSER, browse


def make(folder: Path, **sections: object) -> Sweep:
    """Three well separated classes along one of six dimensions, and noise in the others."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    x = rng.normal(size=(90, 6)).astype(np.float32)
    x[:, 0] += 20 * labels
    np.savez(folder / "toy.npz", train_features=x, train_labels=labels, test_features=x[:30], test_labels=labels[:30])
    raw = {
        "name": "demo",
        "storage": str(folder / "runs"),
        "axes": {
            "dataset": [{"name": "arrays", "features": str(folder / "toy.npz"), "classes": [2, 0, 1], "label": "toy"}],
            "learner": ["logreg", {"name": "logreg", "space": "pca2", "label": "flat"}],
            "strategy": ["random", {"name": "kcenter_greedy", "space": "pca2", "label": "kcenter-flat"}, "full"],
            "seed": 2,
        },
        "protocol": {"initial": 0, "batch": 3, "rounds": 3},
    }
    return parse_sweep({**raw, **sections})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Storage, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("spaces")
    sweep = make(folder)
    storage = Storage.open(sweep.storage)
    rows = [
        record_row(t.name, record, {"peak_mb": 1.0, "host": "h", "device": "cpu", "versions": "{}"})
        for t in sweep.trajectories
        for record in run_locally(sweep, t, storage)
    ]
    storage.child("demo").write(FILE, json.dumps(describe_spaces(sweep)).encode())
    return storage.child("demo"), to_table(rows).to_pandas()


def test_what_a_run_writes_down(tmp_path):
    described = describe_spaces(make(tmp_path))
    entry = described["datasets"]["toy"]
    assert entry["classes"] == ["2", "0", "1"]
    assert set(entry["spaces"]) == {"features", "pca2"}
    assert entry["spaces"]["features"] == entry["labels"]
    arms = {tuple(arm) for *arm, _ in described["arms"]}
    assert all(strategy != "full" for *_, strategy in arms)
    spaces = {(learner, strategy): space for _, learner, _, strategy, space in described["arms"]}
    assert spaces == {
        ("logreg", "random"): "features",
        ("flat", "random"): "pca2",
        ("logreg", "kcenter-flat"): "pca2",
        ("flat", "kcenter-flat"): "pca2",
    }


def test_facts_of_a_finished_sweep(finished):
    folder, results = finished
    facts = space_facts(folder, results)
    assert facts is not None
    assert [(s.dataset, s.space) for s in facts.scatters] == [("toy", "features"), ("toy", "pca2")]
    assert facts.scatters[1].points.shape == (90, 2)
    assert facts.scatters[1].share == pytest.approx(1.0)
    # The classes lie 20 apart along the first component; means of 30 standard normal draws are within 1 of theirs.
    means = [facts.scatters[1].points[facts.scatters[1].labels == c, 0].mean() for c in range(3)]
    assert np.diff(sorted(means)) == pytest.approx([20, 20], abs=1)
    nmi = {a.space: a for a in facts.agreements}
    assert nmi["pca2"].nmi == nmi["features"].nmi == pytest.approx(1.0)
    assert nmi["pca2"].low <= nmi["pca2"].mean <= nmi["pca2"].high
    radii = facts.radii
    assert set(zip(radii["learner"], radii["strategy"], strict=True)) == {
        ("features", "random"), ("pca2", "random"), ("pca2", "kcenter-flat")
    }  # fmt: skip
    assert radii["labels"].unique().tolist() == [3, 6, 9]
    mean = radii.groupby(["learner", "strategy", "labels"])[RADIUS].mean()
    assert mean["pca2", "kcenter-flat", 9] < mean["pca2", "kcenter-flat", 3]


def test_the_section_is_in_the_report(finished):
    folder, results = finished
    facts = space_facts(folder, results)
    page = Page(write_report(results, "demo", {}, facts))
    assert "spaces" in headings(page)
    for text in ("class 2", "toy · pca2 · 100% of the variance", "covering radius", "kcenter-flat", "1.000 to 1.000"):
        assert text in page.text
    again = space_facts(folder, results)
    assert facts
    assert again
    assert spaces_section(facts) == spaces_section(again)


def test_a_report_does_without_what_is_gone(finished, tmp_path):
    folder, results = finished
    assert folder.local
    moved = tmp_path / "runs" / "demo"
    shutil.copytree(folder.local, moved)
    assert space_facts(Storage.open(moved), results) is None  # no artifacts beside it
    (moved / FILE).unlink()
    assert space_facts(Storage.open(moved), results) is None


def test_a_sweep_without_spaces_of_few_dimensions_has_no_section(tmp_path):
    sweep = make(tmp_path)
    storage = Storage.open(sweep.storage)
    described = describe_spaces(sweep)
    described["datasets"]["toy"]["spaces"] = {}
    storage.child("demo").write(FILE, json.dumps(described).encode())
    assert space_facts(storage.child("demo"), to_table([]).to_pandas()) is None


def test_names_are_escaped_and_many_classes_are_not_all_named():
    labels = np.arange(60) % 20
    points = np.random.default_rng(0).normal(size=(60, 2))
    names = [f"<b>{c}" for c in range(20)]
    html = spaces_section(SpaceFacts([Scatter("<i>", "line", points, labels, names, 0.5)]))
    page = Page(html)
    assert "class <b>11" in page.text
    assert "class <b>12" not in page.text
    assert "and 8 more" in page.text


def test_one_dimension_and_equal_rows_are_drawn():
    from ray_al.space_facts import _agreement, _scatter

    labels = np.arange(8) % 2
    for x in (np.arange(8.0)[:, None], np.zeros((8, 1)), np.zeros((8, 3))):
        drawn = _scatter("toy", "line", x, labels, ["0", "1"])
        assert drawn.points.shape == (8, 2)
        assert np.isfinite(drawn.points).all()
        assert 0 <= drawn.share <= 1
        assert np.isfinite(_agreement("toy", "line", x, labels).nmi)
        assert "svg" in spaces_section(SpaceFacts([drawn]))


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on this machine")
def test_the_section_in_a_browser(sweep, tmp_path):
    """No name is cut or covered, with many classes and long names, on a phone and on a desk."""
    rng = np.random.default_rng(0)
    names = [f"a long name of class {c}" for c in range(20)]
    scatters = [Scatter("toy", "latent " * 9, rng.normal(size=(80, 2)), np.arange(80) % k, names, 0.5) for k in (3, 20)]
    cell = {"dataset": "toy", "learner": "latent", "protocol": "p", "status": "ok", "seed": 0}
    rows = [
        {
            **cell,
            "strategy": f"strategy {s}",
            "trajectory_id": str(s),
            "round": r,
            "labels": 10 * (r + 1),
            RADIUS: 9.0 - r,
        }
        for s in range(9)
        for r in range(3)
    ]
    facts = SpaceFacts(scatters, [Agreement("toy", "latent", 3, 90, 0.9, 0.8, 0.7, 0.9)], pd.DataFrame(rows), 10)
    page = write_report(sweep({"random": 0.2, "margin": 0.3}, seeds=2, rounds=3), "demo", {}, facts)
    found, log = browse(tmp_path, page)
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []
    assert [(each["cut"], each["overlap"], each["wider"] <= 0) for each in found] == [([], [], True)] * 2
