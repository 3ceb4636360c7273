"""The artifact store on a local folder, in one process: contents, damage, failures, leftovers."""

import json
import warnings
from pathlib import Path

import pytest

from ray_al.data import artifact_folder
from ray_al.data.artifacts import ArtifactStore, artifact_key
from ray_al.storage import Storage

CONFIG = {"of": "abc", "dims": 3}


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(Storage.open(tmp_path / "runs"))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "runs" / "artifacts"


class Builder:
    """Writes two files and counts how often it was asked to."""

    def __init__(self, text="hello"):
        self.calls, self.text = 0, text

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        (folder / "a.txt").write_text(self.text)
        (folder / "deep").mkdir()
        (folder / "deep" / "b.bin").write_bytes(bytes(1000))


def forget_hashes():
    """What a new process knows of the artifacts: nothing."""
    artifact_folder._verified.clear()


def visible(root):
    return sorted(path.name for path in root.iterdir() if not path.name.startswith("."))


def drafts(root):
    return [path.name for path in root.iterdir() if path.name.endswith(".tmp")]


def test_built_once_then_read(store, root):
    build = Builder()
    assert not store.has("pca", CONFIG)
    first = store.get_or_build("pca", CONFIG, build)
    again = store.get_or_build("pca", dict(reversed(CONFIG.items())), build)
    assert build.calls == 1
    assert first == again
    assert store.has("pca", CONFIG)
    assert first.path == root / first.name
    assert first.name == f"pca-{artifact_key('pca', CONFIG)}"
    assert len(artifact_key("pca", CONFIG)) == 16
    assert (first.path / "a.txt").read_text() == "hello"
    assert store.open(first.name) == first
    assert drafts(root) == []


def test_the_manifest_says_what_and_how(store):
    manifest = json.loads((store.get_or_build("pca", CONFIG, Builder()).path / "manifest.json").read_text())
    assert manifest["kind"] == "pca"
    assert manifest["config"] == CONFIG
    assert manifest["files"]["deep/b.bin"]["bytes"] == 1000
    assert len(manifest["files"]["a.txt"]["sha256"]) == 64
    assert manifest["seconds"] >= 0
    assert set(manifest["versions"]) == {"numpy", "python", "ray_al"}
    assert manifest["created"].endswith("+00:00")


def test_kind_and_config_are_the_identity(store, root):
    for kind, config in (("pca", CONFIG), ("vae", CONFIG), ("pca", {**CONFIG, "dims": 4})):
        store.get_or_build(kind, config, Builder())
    assert len(visible(root)) == 3


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: (path / "a.txt").write_text("hellO"),
        lambda path: (path / "a.txt").write_text("hell"),
        lambda path: (path / "deep" / "b.bin").unlink(),
        lambda path: (path / "manifest.json").unlink(),
        lambda path: (path / "manifest.json").write_text("{"),
        lambda path: (path / "manifest.json").write_text("[]"),
        lambda path: (path / "manifest.json").write_bytes(b"\xff\xfe"),
        lambda path: (path / "manifest.json").write_text(
            (path / "manifest.json").read_text().replace('"dims": 3', '"dims": 5')
        ),
        lambda path: (path / "manifest.json").write_text((path / "manifest.json").read_text().replace("a.txt", "../x")),
    ],
    ids=[
        "changed",
        "truncated",
        "missing",
        "no manifest",
        "broken",
        "no mapping",
        "no text",
        "other config",
        "outside",
    ],
)
def test_a_damaged_artifact_is_built_again_with_a_warning(store, root, harm):
    build = Builder()
    path = store.get_or_build("pca", CONFIG, build).path
    harm(path)
    forget_hashes()
    with pytest.raises(FileNotFoundError, match="damaged"):
        store.open(path.name)
    with pytest.warns(RuntimeWarning, match=r"artifact pca-\w+ is damaged \(.*\); it is built again"):
        artifact = store.get_or_build("pca", CONFIG, build)
    assert build.calls == 2
    assert (artifact.path / "a.txt").read_text() == "hello"
    assert drafts(root) == []
    assert visible(root) == [artifact.name]


def test_sizes_are_checked_every_time_and_hashes_once(store):
    path = store.get_or_build("pca", CONFIG, Builder()).path
    (path / "a.txt").write_text("hellO")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.get_or_build("pca", CONFIG, Builder())
    (path / "a.txt").write_text("hel")
    assert not store.has("pca", CONFIG)
    with pytest.warns(RuntimeWarning, match="has 3 bytes instead of 5"):
        store.get_or_build("pca", CONFIG, Builder())


def test_a_failing_builder_leaves_nothing(store, root):
    def fail(folder):
        (folder / "half").write_text("x")
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        store.get_or_build("pca", CONFIG, fail)
    assert drafts(root) == visible(root) == []
    assert not store.has("pca", CONFIG)


@pytest.mark.parametrize(
    ("kind", "config", "build", "message"),
    [
        ("PCA!", {}, Builder(), "artifact kind 'PCA!' must be"),
        ("../x", {}, Builder(), "artifact kind"),
        ("pca", {"x": {1, 2}}, Builder(), "must be plain JSON"),
        ("pca", {"x": float("nan")}, Builder(), "not JSON compliant"),
        ("pca", {}, lambda folder: None, "must write files"),
        ("pca", {}, lambda folder: (folder / "manifest.json").write_text("{}"), "none of them manifest.json"),
    ],
)
def test_wrong_use_is_an_error(store, kind, config, build, message):
    with pytest.raises(ValueError, match=message):
        store.get_or_build(kind, config, build)


def test_an_unknown_name_is_an_error(store):
    with pytest.raises(FileNotFoundError, match="there is no artifact pca-0123456789abcdef"):
        store.open("pca-0123456789abcdef")


def test_a_storage_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="file"):
        ArtifactStore(Storage.open(tmp_path / "file")).get_or_build("pca", CONFIG, Builder())


def test_nested_builds(store, root):
    def outer(folder):
        inner = store.get_or_build("pca", {**CONFIG, "inner": True}, Builder("inner"))
        (folder / "copy").write_text((inner.path / "a.txt").read_text())

    assert (store.get_or_build("pca", CONFIG, outer).path / "copy").read_text() == "inner"
    assert len(visible(root)) == 2
    assert drafts(root) == []


def test_without_file_locks_the_first_rename_wins(store, root, monkeypatch):
    import errno
    import fcntl

    def no_locks(*_):
        raise OSError(errno.ENOTSUP, "no locks here")

    monkeypatch.setattr(fcntl, "flock", no_locks)

    def slow(folder):
        store.get_or_build("pca", CONFIG, Builder("first"))  # the other builder, faster
        Builder("second")(folder)

    assert (store.get_or_build("pca", CONFIG, slow).path / "a.txt").read_text() == "first"
    assert drafts(root) == []
