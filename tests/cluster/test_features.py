"""`ray-al features` on a real local Ray: equal bytes whatever happens, and every way to call it wrongly."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray

from ray_al import features as module
from ray_al.__main__ import main
from ray_al.cluster import extraction_pool
from ray_al.cluster.connect import Stop
from ray_al.cluster.extract import Pool
from ray_al.data.embeddings.read import open_embeddings
from ray_al.data.faults import DataError
from tests.cluster.extractions import BACKBONE, InOneRay, command, features, files
from tests.data.picture_files import encoded, write_folder, write_lmdb, write_parquet


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with pictures (two of them broken) and backbones."""
    folder = tmp_path_factory.mktemp("features")
    (folder / "tiny_backbone.py").write_text(BACKBONE)
    write_folder(folder / "photos" / "train", {"a": 60, "b": 41})
    write_folder(folder / "photos" / "test", {"a": 5, "b": 8}, first=500)
    (folder / "photos" / "train" / "a" / "020.png").write_bytes(encoded(20)[:200])
    (folder / "photos" / "test" / "b" / "007.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def slowly(place: Path) -> Iterator[None]:
    """Batches take their time, so that there is a moment to kill something in."""
    (place / "slowly").touch()
    yield
    (place / "slowly").unlink()


@pytest.fixture(scope="module")
def extraction(place: Path) -> Iterator[InOneRay]:
    before = os.getcwd()
    os.chdir(place)
    sys.path.insert(0, str(place))
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=1,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
    )
    joined, module._cluster = module._cluster, lambda *args: contextlib.nullcontext(Stop())
    yield InOneRay(place)
    module._cluster = joined
    ray.shutdown()
    sys.path.remove(str(place))
    os.chdir(before)


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(extraction: InOneRay) -> Path:
    return extraction("undisturbed", actors=1)


def test_what_comes_out_is_what_a_plain_loop_gives(undisturbed: Path, place: Path) -> None:
    import torch
    from PIL import Image

    sys.path.insert(0, str(place))
    import tiny_backbone

    network = tiny_backbone.net().eval()
    found = open_embeddings(str(undisturbed))
    good = [p for p in sorted((place / "photos" / "train").glob("*/*.png")) if p.name != "020.png" or "/b/" in str(p)]
    pixels = np.stack([_pixels(Image.open(p)) for p in good])
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    images = torch.from_numpy(((pixels / 255 - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = network(images).numpy()
    assert found.rows("train").shape == (100, 32)
    np.testing.assert_allclose(found.rows("train"), expected, atol=2e-3)
    assert found.labels("train").tolist() == [0] * 59 + [1] * 41
    assert found.labels("test").tolist() == [0] * 5 + [1] * 7
    failures = (undisturbed / "failures.csv").read_text().splitlines()
    assert [line.rpartition(",")[0] for line in failures[1:]] == ["train,20,a/020.png", "test,12,b/007.png"]


def _pixels(image: object) -> np.ndarray:
    """24 x 32 -> 16 x 21, the middle 16 columns."""
    from PIL import Image

    small = image.convert("RGB").resize((21, 16), Image.Resampling.BILINEAR)  # type: ignore[attr-defined]
    return np.asarray(small)[:, 2:18]


def test_a_strict_command_refuses_a_finished_folder_with_failures(extraction: InOneRay, undisturbed: Path) -> None:
    with pytest.raises(DataError, match=r"a/020.png of train cannot be decoded: .* \(--strict\)"):
        extraction("undisturbed", strict=True)


def test_neither_format_nor_stages_change_the_rows(
    extraction: InOneRay, undisturbed: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same images as Parquet and LMDBs; decoded by tasks for actors that hold a GPU, which here is a mere name."""
    images = {p: p.read_bytes() for p in sorted((place / "photos" / "train").glob("*/*.png"))}
    write_parquet(place / "pq" / "all.parquet", list(images.values()), [p.parent.name for p in images], group=13)
    for name in ("a", "b"):
        chosen = {f"{i:04d}".encode(): data for i, (p, data) in enumerate(images.items()) if p.parent.name == name}
        (place / "lsun").mkdir(exist_ok=True)
        write_lmdb(place / "lsun" / f"{name}_train_lmdb", chosen)
    monkeypatch.setattr(extraction_pool, "choose_pool", lambda *args: Pool(2, cpus=0, gpus=0.5, device="cpu"))
    found = files(extraction("formats", sources=("parquet:pq", "test=lsun:lsun"), shard=40))
    expected = files(undisturbed)
    assert found["train.npy"] == found["test.npy"] == expected["train.npy"]
    assert found["train_labels.npy"] == found["test_labels.npy"] == expected["train_labels.npy"]


def test_two_actors_one_of_them_killed_give_the_same_bytes(
    extraction: InOneRay, undisturbed: Path, slowly: None
) -> None:
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 100
        while not killed and time.monotonic() < deadline:
            time.sleep(0.02)
            if len(list((undisturbed.parent / "killed" / "shards").glob("*.npy"))) < 2:
                continue
            for process in psutil.Process().children(recursive=True):
                if "MapWorker" in " ".join(process.cmdline()):
                    process.send_signal(signal.SIGKILL)
                    killed.append(process.pid)
                    return

    thread = threading.Thread(target=kill)
    thread.start()
    out = extraction("killed", actors=2)
    thread.join()
    assert killed
    assert files(out) == files(undisturbed)


def test_the_command_goes_on_after_kill_9(undisturbed: Path, place: Path, slowly: None) -> None:
    """Killed, gone on with another number of actors, nothing left to do; other settings are refused."""
    out = place / "emb"
    process = subprocess.Popen(
        command("emb", "--actors", "1"), cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 100
    while len(list((out / "shards").glob("*.npy"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    there = {p: p.stat().st_mtime_ns for p in (out / "shards").glob("*.npy")}
    assert 2 <= len(there) < 8
    assert not (out / "manifest.json").exists()
    done = features(place, "emb")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{16 * len(there)} of 114 images are there already" in done.stdout
    assert "114/114 images" in done.stdout
    assert "2 images could not be decoded: emb/failures.csv" in done.stdout
    assert "{name: embeddings, path: emb}" in done.stdout
    assert files(out) == files(undisturbed)
    before = {p: p.stat().st_mtime_ns for p in out.iterdir() if p.name != ".lock"}
    again = features(place, "emb", "--actors", "1")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Ray" not in again.stdout  # not even started
    other = features(place, "emb", "--limit", "50", "--dtype", "float32")
    assert other.returncode == 2
    assert "emb was begun with other settings" in other.stderr
    assert "limit was None, and is 50 now" in other.stderr
    assert "backbone.dtype was 'float16', and is 'float32' now" in other.stderr
    assert {p: p.stat().st_mtime_ns for p in out.iterdir() if p.name != ".lock"} == before


FAULTS = {
    "source": (["imagefolder:nope", "--backbone", "resnet18"], "source nope: there is no such file or folder"),
    "backbone": (["--backbone", "resnt50"], "unknown network 'resnt50'; did you mean 'resnet"),
    "weights": (["--backbone", "resnet18", "--weights", "none.safetensors"], "there is no file none.safetensors"),
    "crop": (["--crop", "64"], "--crop is 64, more than --resize 16"),
    "mean": (["--mean", "1,2"], "--mean is '1,2'; give one number or three"),
    "nan": (["--mean", "nan"], "--mean is 'nan'; give one number or three"),
    "infinite": (["--std", "1,1,inf"], "--std is '1,1,inf'; give one number or three"),
    "uri": (["--out", "s3://bucket/x"], "--out: s3://bucket/x is a URI; give a local folder"),
    "precision": (["--precision", "float8"], "--precision is 'float8'; did you mean 'float"),
    "out": (["--out", "tiny_backbone.py"], "--out: tiny_backbone.py is a file"),
    "inside": (
        ["--out", "photos/train/emb"],
        "emb lies inside of the source photos; give a folder outside",
    ),
    "columns": (["--label-column", "y"], "are for parquet sources; none is given"),
    "gpus": (["--gpus", "64"], "an actor asks for 64 GPUs, which this machine does not have"),
    "actors": (["--actors", "500"], "--actors is 500; there is room for"),
    "interpolation": (["--interpolation", "cubic"], "did you mean 'bicubic'"),
}


@pytest.mark.parametrize("case", [c for c in FAULTS if c not in ("gpus", "actors")])
def test_faults_are_clear_and_start_nothing(place: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    options, message = FAULTS[case]
    before = sorted(p.name for p in place.iterdir())
    argv = sys.argv
    sys.argv = command("fresh", *options)[2:]
    here = os.getcwd()
    os.chdir(place)
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = argv
        os.chdir(here)
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert sorted(p.name for p in place.iterdir() if p.name != "__pycache__") == [
        b for b in before if b != "__pycache__"
    ]


@pytest.mark.parametrize("case", ["gpus", "actors"])
def test_more_than_this_machine_has(extraction: InOneRay, case: str) -> None:
    options, message = FAULTS[case]
    with pytest.raises(DataError) as caught:
        extraction(f"too-{case}", **{case: int(options[1])})
    assert message in str(caught.value)


def test_a_refused_command_binds_nobody(extraction: InOneRay, undisturbed: Path, place: Path) -> None:
    """No GPU for it, or numbers too large for float16: the next command may ask for other things."""
    out = place / "refused"
    with pytest.raises(DataError, match="an actor asks for 64 GPUs"):
        extraction("refused", gpus=64)
    assert [p.name for p in out.iterdir()] == [".lock"]
    with pytest.raises(DataError, match=r"holds .*inf; float16 ends at 65504"):
        extraction("refused", gpus=0, preprocess={"std": "1e-6"})
    assert files(extraction("refused", gpus=0)) == files(undisturbed)
