"""The artifact store on a file system of pyarrow: copies on this machine, the manifest uploaded last."""

import json

import pytest
from pyarrow import fs

from ray_al.data.artifacts import ArtifactStore
from ray_al.storage import Storage
from tests.data.test_artifacts import CONFIG, Builder, drafts, forget_hashes


@pytest.fixture
def remote(tmp_path):
    """The folder that plays the object store."""
    (tmp_path / "bucket").mkdir()
    return tmp_path / "bucket"


@pytest.fixture
def node(remote, tmp_path, monkeypatch):
    """Make this process a node with its own cache folder, and give it the store."""

    def enter(name):
        monkeypatch.setenv("RAY_AL_CACHE", str(tmp_path / name))
        forget_hashes()
        return ArtifactStore(Storage("runs", fs.SubTreeFileSystem(str(remote), fs.LocalFileSystem())))

    return enter


def remote_files(remote):
    return sorted(p.relative_to(remote).as_posix().split("/", 3)[-1] for p in remote.rglob("*") if p.is_file())


def only(path):
    (found,) = path
    return found


def test_built_by_one_node_and_copied_by_another(node, remote):
    build = Builder()
    store = node("first")
    assert not store.has("pca", CONFIG)
    first = store.get_or_build("pca", CONFIG, build)
    assert store.has("pca", CONFIG)
    second = node("second")
    copy = second.get_or_build("pca", CONFIG, build)
    assert build.calls == 1
    assert copy.path != first.path
    assert copy.manifest == first.manifest
    assert (copy.path / "deep" / "b.bin").read_bytes() == bytes(1000)
    assert second.open(copy.name) == copy
    assert (copy.path / "manifest.json").read_bytes() == only(remote.rglob("manifest.json")).read_bytes()
    assert drafts(copy.path.parent) == []


def test_a_name_is_enough_on_a_fresh_node(node):
    name = node("first").get_or_build("pca", CONFIG, Builder()).name
    assert (node("second").open(name).path / "a.txt").read_text() == "hello"
    with pytest.raises(FileNotFoundError, match="pca-0000000000000000"):
        node("second").open("pca-0000000000000000")


def test_a_damaged_copy_is_fetched_again(node):
    build = Builder()
    artifact = node("first").get_or_build("pca", CONFIG, build)
    (artifact.path / "a.txt").write_text("hellO")
    again = node("first").get_or_build("pca", CONFIG, build)
    assert build.calls == 1
    assert (again.path / "a.txt").read_text() == "hello"


def test_files_without_a_manifest_are_no_artifact(node, remote):
    build = Builder()
    node("first").get_or_build("pca", CONFIG, build)
    only(remote.rglob("manifest.json")).unlink()
    store = node("second")
    assert not store.has("pca", CONFIG)
    store.get_or_build("pca", CONFIG, build)
    assert build.calls == 2
    # The first node still has a whole copy of an earlier build, which the storage's own replaces.
    assert (
        node("first").get_or_build("pca", CONFIG, build).manifest == store.get_or_build("pca", CONFIG, build).manifest
    )
    assert build.calls == 2


def test_a_copy_replaces_what_the_storage_has_lost(node, remote):
    build = Builder()
    node("first").get_or_build("pca", CONFIG, build)
    only(remote.rglob("manifest.json")).unlink()
    node("first").get_or_build("pca", CONFIG, build)
    node("second").get_or_build("pca", CONFIG, build)
    assert build.calls == 1


@pytest.mark.parametrize("harm", ["changed", "missing", "manifest"])
def test_a_damaged_remote_artifact_is_built_again(node, remote, harm):
    build = Builder()
    node("first").get_or_build("pca", CONFIG, build)
    target = only(remote.rglob("manifest.json" if harm == "manifest" else "a.txt"))
    if harm == "missing":
        target.unlink()
    else:
        target.write_text("hellO")
    store = node("second")
    with pytest.warns(RuntimeWarning, match="is damaged"):
        artifact = store.get_or_build("pca", CONFIG, build)
    assert build.calls == 2
    assert node("third").get_or_build("pca", CONFIG, build).manifest == artifact.manifest
    assert build.calls == 2
    if harm != "manifest":
        assert len(remote_files(remote)) == 3  # the damaged files are gone


def test_of_two_nodes_at_once_the_first_manifest_holds(node, remote):
    store = node("first")

    def slow(folder):
        node("second").get_or_build("pca", CONFIG, Builder("from the second node"))
        node("first")
        Builder("from the first node")(folder)

    artifact = store.get_or_build("pca", CONFIG, slow)
    assert (artifact.path / "a.txt").read_text() == "from the second node"
    assert json.loads(only(remote.rglob("manifest.json")).read_text()) == artifact.manifest
    assert len(remote_files(remote)) == 3


def test_a_failed_upload_leaves_no_artifact(node, remote, monkeypatch):
    store = node("first")

    def full(self, name, data):
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write", full)
        with pytest.raises(OSError, match="no space"):
            store.get_or_build("pca", CONFIG, Builder())
    assert remote_files(remote) == []
    assert not store.has("pca", CONFIG)
    build = Builder()
    store.get_or_build("pca", CONFIG, build)
    assert build.calls == 0  # what was built is whole, and only had to be uploaded


class Watched:
    """A file system that counts calls; with `folders=False` it needs none to be made, as an object store."""

    def __init__(self, inner, folders):
        self.inner, self.folders, self.calls = inner, folders, []

    def __getattr__(self, name):
        def call(*args, **options):
            self.calls.append(name)
            return getattr(self.inner, name)(*args, **options)

        return call

    def open_output_stream(self, path):
        if not self.folders:
            self.inner.create_dir(path.rpartition("/")[0], recursive=True)
        return self.inner.open_output_stream(path)


@pytest.mark.parametrize("folders", [True, False])
def test_a_folder_is_made_only_where_a_write_needs_it(remote, folders):
    watched = Watched(fs.SubTreeFileSystem(str(remote), fs.LocalFileSystem()), folders)
    storage = Storage("runs", watched)
    storage.write("deep/a", b"1")
    storage.write("deep/a", b"2")
    assert storage.read("deep/a") == b"2"
    assert watched.calls.count("create_dir") == int(folders)
    ArtifactStore(storage).get_or_build("pca", CONFIG, Builder())
    if not folders:
        assert watched.calls.count("create_dir") == 0
