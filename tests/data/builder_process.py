"""Run as a script: builds one artifact, slowly, and tells on stdout what it does."""

import resource
import sys
import time
from pathlib import Path

from ray_al.data.artifacts import ArtifactStore
from ray_al.storage import Storage


def main(root: str, log: str, seconds: str, limit: str) -> None:
    def build(folder: Path) -> None:
        with open(log, "a") as out:
            out.write("built\n")
        (folder / "a.txt").write_text("hello")
        print("building", flush=True)  # noqa: T201
        time.sleep(float(seconds))
        with open(folder / "large.bin", "wb") as out:
            for _ in range(100):
                out.write(bytes(10_000))

    if limit != "0":  # bytes per file: a write beyond it fails as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    artifact = ArtifactStore(Storage.open(root)).get_or_build("pca", {"dims": 3}, build)
    print(artifact.name, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
