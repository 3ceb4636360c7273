"""`ray-al reproduce`: pages, checks, faults; results of a real run and of the benchmark on a GPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.rethinking_results import convert
from ray_al.assemble import run_locally
from ray_al.cli import app
from ray_al.config import parse_sweep
from ray_al.reproduction.page import split_page
from ray_al.reproduction.papers import PAPERS
from ray_al.results.ledger import Ledger
from ray_al.results.load import load_results
from ray_al.space_facts import FILE, describe_spaces
from ray_al.storage import Storage
from ray_al.sweep_file import ConfigError
from tests.reproduction.fabricated import lines, spread, sweep_of, write

PAGE = Path(__file__).parent.parent.parent / "docs" / "reproduction.md"


def reproduce(*words: object) -> tuple[int, str]:
    """Exit code and what was said; faults of the user's come out as ConfigError."""
    done = CliRunner().invoke(app, ["reproduce", *map(str, words)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def mnist(dataset, learner, strategy, seed, labels):
    return {"SEMI": 0.9, "base": 0.4}[learner] + 0.01 * spread(3, learner, labels)[seed]


def test_a_page_and_its_check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage, page = Storage.open(tmp_path / "runs"), tmp_path / "docs" / "page.md"
    write(storage, sweep_of("rethinking_mnist_cpu"), mnist)
    words = ("--storage", tmp_path / "runs", "--out", page)
    code, said = reproduce(*words[:2])
    assert code == 0
    assert "rethinking: 3 holds" in said
    assert [file.name for file in tmp_path.iterdir()] == ["runs"], "a page is written on request alone"
    assert reproduce(*words, "--check")[0] == 1
    assert not page.exists()
    code, said = reproduce(*words)
    assert code == 0
    assert "rethinking: 3 holds" in said
    text = page.read_text()
    assert str(tmp_path) not in text
    row = next(
        line for line in text.splitlines() if "Random, SEMI - base at 20 labels" in line and "not run" not in line
    )
    assert "| **holds**, reduced | **3 of 5 seeds**; at 20 labels; SEMI: **epochs 60 of 200**" in row
    assert "base: epochs 200, **width 16 of 128**, **images 6,000 of all**" in row
    assert "| +10.00 (" in row
    assert reproduce(*words, "--check")[0] == 0
    page.write_text(text.replace("| **holds**, reduced", "| **fails**, reduced", 1))
    code, said = reproduce(*words, "--check")
    assert code == 1
    assert "is not what the results in" in said
    assert "-| Random with SEMI at 20 labels" in said


def test_parts_of_other_papers_stay(tmp_path):
    (tmp_path / "runs").mkdir()
    page = tmp_path / "page.md"
    assert reproduce("rethinking", "--storage", tmp_path / "runs", "--out", page)[0] == 0
    assert list(split_page(page.read_text())) == ["rethinking"]
    assert reproduce("vae", "--storage", tmp_path / "runs", "--out", page)[0] == 0
    assert list(split_page(page.read_text())) == ["vae", "rethinking"]
    edited = page.read_text().replace("one label per class", "two labels per class")
    page.write_text(edited)
    assert reproduce("vae", "--storage", tmp_path / "runs", "--out", page)[0] == 0
    assert page.read_text() == edited
    assert reproduce("vae", "--storage", tmp_path / "runs", "--out", page, "--check")[0] == 0
    assert reproduce("--storage", tmp_path / "runs", "--out", page, "--check")[0] == 1


def test_faults_are_one_message(tmp_path):
    with pytest.raises(ConfigError, match="unknown paper 'vea'; known: vae, rethinking"):
        reproduce("vea", "--storage", tmp_path)
    with pytest.raises(ConfigError, match="is not there"):
        reproduce("--storage", tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="storage: cannot open"):
        reproduce("--storage", "nonsense://x")
    storage = Storage.open(tmp_path)
    folder = write(storage, sweep_of("rethinking_mnist_cpu"), mnist, version="0.0.1")
    with pytest.raises(ConfigError, match=r"rethinking-mnist-cpu: results of ray-al 0\.0\.1, but this is"):
        reproduce("--storage", tmp_path)
    raw = sweep_of("rethinking_mnist_cpu")
    write(storage, raw, mnist)
    raw["axes"]["learner"][1]["no_longer_known"] = 1
    folder.write("sweep.json", json.dumps(raw).encode())
    with pytest.raises(ConfigError, match=r"no_longer_known.*results of another version"):
        reproduce("--storage", tmp_path)
    folder.write("sweep.json", b"{")
    with pytest.raises(ConfigError, match="cannot be read"):
        reproduce("--storage", tmp_path)


def test_a_fault_has_exit_code_2(tmp_path):
    command = [sys.executable, "-m", "ray_al", "reproduce", "--storage", "nowhere"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(PAGE.parents[1])}, text=True, capture_output=True
    )
    assert done.returncode == 2
    assert (
        done.stderr.strip() == "error: storage 'nowhere' is not there; give the folder that holds the sweeps' results"
    )


def test_a_sweep_without_results_is_not_run(tmp_path):
    storage = Storage.open(tmp_path)
    storage.child("rethinking-mnist-cpu").write("sweep.json", b"{}")
    found = lines("rethinking", storage)
    assert {line.verdict for line in found.values()} == {"not run"}
    commands = {line.command for name, line in found.items() if "reduced for CPUs" in name}
    assert commands == {"ray-al run sweeps/rethinking_mnist_cpu.yaml"}


def test_a_real_run_of_the_auto_encoder_is_measured(tmp_path):
    """Digits instead of MNIST, one epoch, two draws: spaces, radii and accuracies come from what the run wrote."""
    sweep = parse_sweep(
        sweep_of(
            "vae_three", f"storage={tmp_path}", "axes.seed=2", "protocol=[{budgets: [20, 40]}]",
            "spaces.latent.epochs=1", "axes.learner=[{name: svc, space: latent, label: svc-latent}]",
            "axes.dataset=[{name: digits, classes: [0, 3, 9], label: digits-three}]",
            "axes.strategy=[random, {name: kmeans_partition, clusters: 20, space: latent, label: geometric-latent}]",
        )
    )  # fmt: skip
    storage = Storage.open(tmp_path)
    folder = storage.child(sweep.name)
    folder.write("sweep.json", json.dumps(sweep.raw).encode())
    folder.write(FILE, json.dumps(describe_spaces(sweep)).encode())
    accuracy = {}
    for trajectory in sweep.trajectories:
        ledger = Ledger(folder, trajectory.name)
        for record in run_locally(sweep, trajectory, storage):
            ledger.append(record, {"peak_mb": 1.0, "host": "h", "device": "cpu", "versions": "{}"})
            cell = trajectory.name.strategy, trajectory.name.learner, trajectory.seed, record.labels
            accuracy[cell] = record.accuracy
        ledger.finish()
    found = {name.partition(": ")[2]: line for name, line in lines("vae", storage).items() if line.ours}
    drawn = [accuracy["random", "svc-latent", seed, 40] for seed in (0, 1)]
    assert found["U-latent at 40 labels"].ours.value == pytest.approx(np.mean(drawn))
    assert (
        found["U-latent at 40 labels"].settings
        == "**data digits 0 3 9 (paper: mnist 0 3 9)**, **VAE epochs 1 of 10**, KL book"
    )
    assert 0 < found["NMI of k-means (K=3), codes"].ours.value <= 1
    assert found["three digits: covering radius in codes, geometric over uniform"].ours.labels == "20, 40"


def gpu_record():
    """What the benchmark writes: two seeds, two cycles of base and of PRE+SEMI, the second cycle by strategy."""
    cells = {}
    for setting, values in (("base", (0.30, 0.37)), ("PRE+SEMI", (0.40, 0.50))):
        for seed in (0, 1):
            for cycle, strategies in enumerate((("all",), ("random", "entropy"))):
                for strategy in strategies:
                    lower = 0.02 if strategy == "entropy" else 0.0
                    cells[f"{setting}/{seed}/{strategy}/{cycle}"] = {
                        "accuracy": values[cycle] - lower + 0.01 * seed, "labels": 100 * (cycle + 1), "seconds": 9.0,
                        "last": {"stage": "semi" if setting != "base" else "sup", "seconds": 1.25},
                        "picks": {"random": [1, 2], "entropy": [3, 4]},
                    }  # fmt: skip
    settings = {"epochs": 60, "sup_epochs": 200, "pre_epochs": 50, "batch": 100}
    settings |= {"strategy": "entropy", "precision": "auto"}
    return {"cells": cells, "settings": settings, "device": "GPU", "machine": {"versions": {"torch": "2"}}}


def test_what_a_gpu_found_is_read_like_a_sweep(tmp_path):
    storage = Storage.open(tmp_path)
    for _ in range(2):  # written anew
        assert convert(gpu_record(), storage).startswith("8 trajectories in ")
    found = lines("rethinking", storage)
    section = "CIFAR-10, 100 labels a cycle, on one GPU: "
    gain = found[section + "(c) Random, PRE+SEMI - base, cycle 1"]
    assert gain.ours.value == pytest.approx(0.13)
    assert gain.settings == (
        "PRE+SEMI: **epochs 60 of 200**, SUP epochs 200, **PRE epochs 50 of 250**; base: epochs 200"
    )
    lead = found[section + "(e) PRE+SEMI: Random above uncertainty after the first cycle"]
    assert (lead.verdict, lead.ours.labels) == ("holds", "200")
    assert lead.ours.value == pytest.approx(0.02)
    assert found[section + "(c) Random, PRE+SEMI - base, cycle 2"].verdict == "not run"
    seconds = found[section + "seconds of a SEMI epoch, pseudo-labels included, on an H200"]
    assert (seconds.ours.value, seconds.verdict) == (1.25, "holds")
    rows = load_results(storage.child("rethinking-gpu"))
    later = rows[(rows["strategy"] == "uncertainty") & (rows["round"] == 1)]
    assert [ids.tolist() for ids in later["asked_ids"]] == [[3, 4]] * 4
    cell = found["Table III, CIFAR-10, 100 labels a cycle, on one GPU: cycle 0, random, base"]
    assert cell.ours.value == pytest.approx(0.305)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rethinking_gpu", "run", "none.npz"], "error: none.npz is not there: give a file with train_images"),
        (["rethinking_gpu", "run", "empty"], "error: empty holds no train_images"),
        (["rethinking_gpu", "split", "none.npz", "parts"], "error: none.npz is not there"),
        (["rethinking_results", "runs", "--record", "none.json"], "error: none.json is not there"),
    ],
)
def test_files_of_the_benchmark_that_are_not_there(tmp_path, words, message):
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-m", f"benchmarks.{words[0]}", *words[1:]]
    environment = {**os.environ, "PYTHONPATH": str(PAGE.parents[1])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["empty"]


def test_the_page_in_docs_has_the_claims_of_today():
    """Whatever its results are: texts, reported numbers and rules are those of the tables of claims."""
    parts = split_page(PAGE.read_text(encoding="utf-8"))
    assert list(parts) == list(PAPERS)
    for key, paper in PAPERS.items():
        rows = [line.strip("| ").split(" | ") for line in parts[key].splitlines() if line.startswith("| ")]
        shown = {(row[0], row[1]) for row in rows}
        for section in paper.sections:
            assert f"### {section.title}\n" in parts[key]
            for claim in section.claims if not section.folded else ():
                unit, told = claim.unit, claim.reported
                assert f"{claim.text} ({claim.source})" in {text for text, _ in shown}, claim.text
                if not told.said:
                    near = [reported for text, reported in shown if text == f"{claim.text} ({claim.source})"]
                    assert any(reported.startswith(unit.short(told.value)) for reported in near), claim.text
    assert "budgets labels" not in PAGE.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users)/", PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", ["folder", "bytes", "file/page.md"])
def test_a_page_that_cannot_be_read_or_written_is_named(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Storage.open(tmp_path / "runs"), sweep_of("rethinking_mnist_cpu"), mnist)
    (tmp_path / "folder").mkdir()
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=f"^the page cannot be (read|written): {page}"):
        reproduce("rethinking", "--storage", "runs", "--out", page)
    assert (tmp_path / "bytes").read_bytes() == b"\xff\xfe"
