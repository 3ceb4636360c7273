"""`ray-al features`: what the command line says, checked; then the extraction, from its first shard to its manifest."""

from __future__ import annotations

import contextlib
import math
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ray_al.backbones.backbone import DTYPES, PRECISIONS, BackboneSpec, Loaded, load
from ray_al.backbones.preprocess import INTERPOLATIONS
from ray_al.data.embeddings.assemble import finish, refuse_failures
from ray_al.data.embeddings.read import FORMAT
from ray_al.data.embeddings.shards import RUN, ShardFolder, claimed, encode, write_whole
from ray_al.data.faults import DataError, choices, user_path
from ray_al.data.items.listing import Listing
from ray_al.data.items.sources import ImageSource, list_images, parse_source

if TYPE_CHECKING:
    from ray_al.cluster.connect import Stop
    from ray_al.cluster.extract import Pool

_VERSIONS = ("torch", "torchvision", "pillow", "numpy")  # another release of these may give other bits


@dataclass(frozen=True)
class Request:
    """One extraction. None leaves a choice to the backbone's weights, or to the cluster."""

    sources: tuple[ImageSource, ...]
    backbone: BackboneSpec
    out: Path
    batch: int = 64
    preprocess: dict[str, Any] = field(default_factory=dict)  # what is to differ from the weights' preprocessing
    image_column: str | None = None
    label_column: str | None = None
    limit: int | None = None
    strict: bool = False
    actors: int | None = None
    gpus: float | None = None
    shard: int = 2048  # images, about: what a killed run may have to do again


@dataclass(frozen=True)
class Done:
    """How it ended. `images` were embedded by this run; the other numbers are of the folder."""

    manifest: dict[str, Any]
    images: int
    seconds: float

    def summary(self, out: Path) -> str:
        """What the folder holds, and how a sweep names it."""
        splits = self.manifest["splits"]
        held = ", ".join(f"{split} {s['rows']:,} x {s['width']}" for split, s in splits.items())
        failed = sum(s["failed"] for s in splits.values())
        broken = f"{failed:,} images could not be decoded: {out}/failures.csv" if failed else ""
        rate = f" ({self.images:,} images in {self.seconds:.1f} s)" if self.images else ""
        lines = [f"{held}{rate} in {out}", broken, f"a sweep's dataset or space: {{name: embeddings, path: {out}}}"]
        return "\n".join(line for line in lines if line)


def parse_request(
    sources: Sequence[str], backbone: str, weights: str | None, precision: str, dtype: str, out: str,
    preprocess: dict[str, Any], **others: Any,
) -> Request:  # fmt: skip
    """Check what shows without reading any file. Raises DataError with every fault."""
    faults: list[str] = []
    parsed: list[ImageSource] = []
    for text in sources:
        try:
            parsed.append(parse_source(text))
        except DataError as error:
            faults += error.faults
    for option, given, known in (
        ("--precision", precision, PRECISIONS),
        ("--dtype", dtype, DTYPES),
        ("--interpolation", preprocess.get("interpolation"), INTERPOLATIONS),
    ):
        if given is not None and given not in known:
            faults.append(f"{option} is {given!r}{choices(given, known)}")
    changed = {key: value for key, value in preprocess.items() if value is not None}
    for option in ("mean", "std"):
        if option in changed:
            changed[option] = _three(f"--{option}", changed[option], faults)
    if "://" in out:
        faults.append(f"--out: {out} is a URI; give a local folder, or a shared one that is mounted here")
    elif (folder := user_path(out)).exists() and not folder.is_dir():
        faults.append(f"--out: {out} is a file; give a folder")
    else:
        inside = [source.path for source in parsed if folder.resolve().is_relative_to(source.path.resolve())]
        faults += [f"--out: {out} lies inside of the source {path}; give a folder outside of it" for path in inside]
    if faults:
        raise DataError(faults)
    spec = BackboneSpec(backbone, weights, precision, dtype)
    return Request(tuple(parsed), spec, folder, preprocess=changed, **others)


def _three(option: str, text: str, faults: list[str]) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) == 1:
        values *= 3
    if len(values) != 3 or not all(map(math.isfinite, values)):
        faults.append(f"{option} is {text!r}; give one number or three, as in 0.485,0.456,0.406")
    elif option == "--std" and min(values) <= 0:
        faults.append(f"{option} is {text!r}; a deviation is above 0")
    return values


def run_features(
    request: Request, console: Console, address: str | None = None, cpus: int | None = None, dashboard: bool = True
) -> Done:
    """List the sources, load the backbone, compute what is missing, and finish the folder.

    Raises:
        DataError: a fault of the user's.
        KeyboardInterrupt: stopped; the same request goes on.
    """
    if absent := [source.path for source in request.sources if not source.path.exists()]:
        raise DataError([f"source {path}: there is no such file or folder" for path in absent])  # before a download
    loaded = _backbone(request)
    listing = list_images(request.sources, request.image_column, request.label_column).limited(request.limit)
    folder = ShardFolder(request.out, request.batch * max(1, request.shard // request.batch))
    with claimed(folder.path), contextlib.ExitStack() as stack:
        device, joined = _device(request, folder, address), False
        if device is None:  # what there is, only the cluster can say
            stop = stack.enter_context(_cluster(address, cpus, dashboard, console))
            from ray_al.cluster.extraction_pool import has_gpus

            device, joined = "cuda" if has_gpus() else "cpu", True
        settings = _settings(request, loaded, listing, folder, device)
        folder.check(settings)
        if request.strict and folder.begun() is not None:
            refuse_failures(folder, listing)
        if (manifest := folder.manifest()) is not None:
            folder.drop_shards()
            return Done(manifest, 0, 0.0)
        started, images = time.monotonic(), 0
        if left := _left(listing, folder):
            if not joined:
                stop = stack.enter_context(_cluster(address, cpus, dashboard, console))
            from ray_al.cluster.extraction_pool import choose_pool

            batches = -(-left // request.batch)
            pool = choose_pool(request.actors, request.gpus, device, address is None, batches, console)
            folder.begin(settings)  # after all that can be refused
            images = _compute(request, loaded, listing, folder, left, pool, console, stop)
        seconds = time.monotonic() - started
        manifest = finish(folder, listing, settings)
        write_whole(folder.path / RUN, encode(_run(request, images, seconds)))
        return Done(manifest, images, seconds)


def _backbone(request: Request) -> Loaded:
    loaded = load(request.backbone, request.preprocess)
    if loaded.preprocess.crop > loaded.preprocess.resize:
        fault = f"--crop is {loaded.preprocess.crop}, more than --resize {loaded.preprocess.resize}"
        raise DataError([f"{fault}; the cut would reach over the image"])
    return loaded


def _device(request: Request, folder: ShardFolder, address: str | None) -> str | None:
    """That of --gpus, else of what the folder was begun with, else of this machine; None: the cluster must be asked."""
    if request.gpus is not None:
        return "cuda" if request.gpus else "cpu"
    if (before := folder.begun()) is not None:
        return str(before.get("device"))
    from ray_al.cluster.resources import this_machine

    return None if address else "cuda" if this_machine()["GPU"] else "cpu"


@contextlib.contextmanager
def _cluster(address: str | None, cpus: int | None, dashboard: bool, console: Console) -> Iterator[Stop]:
    from ray_al.cluster.head import take_token

    take_token(address)
    from ray_al.cluster.connect import Stop, connected

    with connected(address, cpus, dashboard, console), Stop().listening() as stop:
        yield stop


def _left(listing: Listing, folder: ShardFolder) -> int:
    """Images of the shards that are missing."""
    return sum(
        min(folder.rows, len(items) - shard * folder.rows)
        for split, items in listing.splits.items()
        for shard in folder.missing(split, len(items))
    )


def _compute(
    request: Request, loaded: Loaded, listing: Listing, folder: ShardFolder, left: int, pool: Pool, console: Console,
    stop: Stop,
) -> int:  # fmt: skip
    """Compute the missing shards and show how it goes. Returns the number of images embedded."""
    from ray_al.cluster.extract import extract
    from ray_al.cluster.extraction_progress import ExtractionProgress

    total, images = sum(len(items) for items in listing.splits.values()), 0
    with ExtractionProgress(total, total - left, console) as progress:
        for done in extract(listing, loaded, folder, request.batch, pool, request.strict):
            images += done.images
            progress.advance(done)
            stop.check()
    return images


def _settings(
    request: Request, loaded: Loaded, listing: Listing, folder: ShardFolder, device: str
) -> dict[str, Any]:  # fmt: skip
    """All that decides the bytes. Where things lie does not, nor how many actors there are."""
    return {
        "format": FORMAT,
        "source": {
            "items": {split: len(items) for split, items in listing.splits.items()},
            "fingerprint": listing.fingerprint(),
        },
        "limit": request.limit,
        "backbone": {**loaded.identity, "precision": request.backbone.precision, "dtype": request.backbone.dtype},
        "preprocess": asdict(loaded.preprocess),
        "batch": request.batch,
        "shard": folder.rows,
        "device": device,
        "versions": {name: version(name) for name in _VERSIONS},
    }


def _run(request: Request, images: int, seconds: float) -> dict[str, Any]:
    """What the manifest leaves out, because it may differ between two runs of one extraction."""
    return {
        "sources": [f"{source.kind}:{source.path}" for source in request.sources],
        "weights": request.backbone.weights,
        "images": images,
        "seconds": round(seconds, 3),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
    }
