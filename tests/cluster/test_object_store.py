"""A sweep whose storage is an S3 server, on loopback: every command, a kill, a second run at the same time."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_al import load_results
from ray_al.cluster import lease
from ray_al.cluster.connect import Stop
from ray_al.cluster.lease import Lease, only_run, refuse_second_run
from ray_al.planning import preflight
from ray_al.storage import Storage
from ray_al.sweep_file import ConfigError

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def store() -> Iterator[tuple[Any, str]]:
    """(client, what follows the ? of its URIs)"""
    server_module = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    before = {key: os.environ.get(key) for key in KEYS}
    os.environ.update(KEYS)
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
    client.create_bucket(Bucket="lab")
    yield client, f"endpoint_override={host}:{port}&scheme=http"
    server.stop()
    for key, value in before.items():
        os.environ.pop(key) if value is None else os.environ.update({key: value})


@pytest.fixture
def folder(store: tuple[Any, str], request: pytest.FixtureRequest) -> Storage:
    return Storage.open(f"s3://lab/{request.node.name}?{store[1]}")


def _keys(client: Any, prefix: str) -> list[str]:
    return [item["Key"] for item in client.list_objects_v2(Bucket="lab", Prefix=prefix).get("Contents", [])]


COMMAND = [sys.executable, "-m", "ray_al"]


def test_a_store_that_cannot_be_used_is_told_before_anything_starts(store: tuple[Any, str], tmp_path: Path) -> None:
    axes = {"dataset": ["digits"], "learner": ["logreg"], "strategy": ["random"], "seed": 1}

    def faults(uri: str) -> list[str]:
        (tmp_path / "x.yaml").write_text(yaml.safe_dump({"name": "x", "storage": uri, "axes": axes}))
        with pytest.raises(ConfigError) as error:
            preflight(tmp_path / "x.yaml", (), False, 1, local=True)
        return list(error.value.faults)

    missing, away = f"s3://nowhere/runs?{store[1]}", "s3://lab/runs?endpoint_override=127.0.0.1:1&scheme=http"
    assert faults(missing) == [f"storage: {missing!r} names a bucket that does not exist"]
    (fault,) = faults(away)
    assert fault.startswith(f"storage: cannot read {away!r}: ")
    assert faults("s3://") == ["storage: cannot open storage 's3://': it names no bucket or folder"]
    assert not _keys(store[0], "x")


@pytest.mark.slow
def test_a_sweep_on_an_object_store(store: tuple[Any, str], tmp_path: Path) -> None:
    client, query = store
    sweep = {
        "name": "s3",
        "storage": f"s3://lab/runs?{query}",
        "axes": {"dataset": ["digits"], "learner": ["logreg"], "strategy": ["random", "typiclust"], "seed": 2},
        "protocol": {"initial": 10, "batch": 5, "rounds": 150},  # for longer than a lease takes to show life
    }
    (tmp_path / "s3.yaml").write_text(yaml.safe_dump(sweep))
    run = [*COMMAND, "run", "s3.yaml", "--no-dashboard"]
    environment = {**os.environ, "RAY_AL_CACHE": str(tmp_path / "cache")}

    def ray_al(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200,
            check=False,
        )  # fmt: skip

    with open(tmp_path / "log", "w") as log:
        first = subprocess.Popen(run, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    deadline = time.monotonic() + 120
    while first.poll() is None and not _keys(client, "runs/s3/lease/") and time.monotonic() < deadline:
        time.sleep(0.1)
    with pytest.raises(ConfigError, match=f"another run of sweep 's3' is going on .process {first.pid} on "):
        refuse_second_run(Storage.open(f"s3://lab/runs/s3?{query}"))
    while first.poll() is None and not _keys(client, "runs/s3/ledger") and time.monotonic() < deadline:
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    again = ray_al("run", "s3.yaml", "--no-dashboard")  # at once: the process of the lease is known to be dead
    assert again.returncode == 0, again.stdout + again.stderr
    assert "4 of 4 trajectories done" in again.stdout
    place = f"s3://lab/runs/s3?{query}"
    frame = load_results(place)
    assert frame.groupby("trajectory_id").size().tolist() == [150] * 4
    for words, answer in (
        (["status", place], "300"),
        (["results", place], "typiclust"),
        (["report", place], "report.html"),
        (["verify", place, "--sample", "4"], "150 rounds equal"),
    ):
        told = ray_al(*words)
        assert told.returncode == 0, told.stdout + told.stderr
        assert answer in told.stdout
    left = _keys(client, "runs/s3/")
    assert "runs/s3/report.html" in left
    assert len([key for key in left if "tfevents" in key]) == 4
    assert not [key for key in left if ".parquet" in key and "/results/" not in key], "parts were left behind"
    assert not [key for key in left if key.endswith(".json") and "/lease/" in key]


def test_small_files_take_one_request_and_a_failed_one_leaves_nothing(store: tuple[Any, str], folder: Storage) -> None:
    client, _ = store
    folder.write("a/b", b"whole")
    assert folder.read("a/b") == b"whole"
    uploads = client.list_multipart_uploads(Bucket="lab").get("Uploads", [])
    assert not uploads
    again = Storage.open(folder.child("a").uri)
    assert again.list() == ["b"]
    assert again.read("b") == b"whole"

    def fill(out: Any) -> None:
        out.write(b"half")
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        folder.put("a/c", fill)
    assert folder.list("a") == ["b"]
    with pytest.raises(OSError, match="NO_SUCH_BUCKET"):
        Storage.open(folder.uri.replace("lab", "nowhere")).write("x", b"")


def test_a_lease_that_beats_holds_and_one_that_does_not_is_taken_over(
    folder: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(lease, "STALE_SECONDS", 1.0)
    refuse_second_run(folder)
    assert folder.list("lease") == []
    with only_run(folder) as held:
        assert held is not None
        with pytest.raises(ConfigError, match=f"process {os.getpid()} on"):
            refuse_second_run(folder)
        with pytest.raises(ConfigError, match="is going on"), only_run(folder):
            pass
        assert folder.list("lease") == [held.name]
    assert folder.list("lease") == []
    dead = b'{"host": "elsewhere", "machine": "other", "pid": 1, "beats": 7}'
    folder.write("lease/dead.json", dead)
    started = time.monotonic()
    stale = refuse_second_run(folder)
    assert time.monotonic() - started >= 1.0
    assert stale == ("dead.json",)
    assert folder.list("lease") == ["dead.json"]  # whose run may only be cut off: it is told before it is struck off
    with only_run(folder, stale) as held:
        assert held is not None
        assert held.took == stale
        assert folder.list("lease") == [held.name]
        assert json.loads(folder.read(f"lease/{held.name}"))["took"] == ["dead.json"]
    folder.write("lease/dead.json", dead)
    with only_run(folder) as held:
        assert held is not None
        assert held.took == stale


def test_a_run_that_was_cut_off_learns_that_another_took_over(folder: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(lease, "STALE_SECONDS", 1.0)
    told: list[int] = []
    monkeypatch.setattr(lease.os, "kill", lambda pid, number: told.append(number))
    away, beat = set[str](), Lease._write

    def write(self: Lease) -> None:
        if self.name in away:
            raise OSError("no link")
        beat(self)

    monkeypatch.setattr(Lease, "_write", write)
    with only_run(folder) as first:
        assert first is not None
        away.add(first.name)
        stale = refuse_second_run(folder)
        away.clear()  # its link is back while the second one starts its cluster
        time.sleep(0.5)
        with only_run(folder, stale) as second:
            assert second is not None
            assert first.lost.wait(5)
    assert told == [signal.SIGINT]


def test_a_lease_of_a_dead_process_of_this_machine_is_taken_over_at_once(folder: Storage) -> None:
    code = "import json; from ray_al.cluster import lease; print(json.dumps(lease._this_process()))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    folder.write("lease/dead.json", child.stdout)
    started = time.monotonic()
    with only_run(folder) as held:
        assert held is not None
        assert held.took == ("dead.json",)
    assert time.monotonic() - started < lease.STALE_SECONDS


def test_a_run_that_slept_stops_when_another_took_over(folder: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    slept, other = Lease(folder), Lease(folder)
    slept.start()
    other.took = (slept.name,)
    with Stop().listening(), pytest.raises(KeyboardInterrupt):
        _start_and_sleep(other)
    other.stop()
    assert slept.lost.is_set()
    slept.stop()


def _start_and_sleep(run: Lease) -> None:
    run.start()
    time.sleep(20)
