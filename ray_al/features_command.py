"""The command `ray-al features`: its options."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

console = Console()


def features(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help=(
        "kind:path, the kind one of imagefolder, imagenet, lsun, parquet; test=kind:path makes it the test split."
    ))],
    backbone: Annotated[str, typer.Option(metavar="NAME", help="Torchvision's name, or package.module:function.")],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder of the embeddings.")],
    weights: Annotated[str | None, typer.Option(help="Of torchvision, or a .safetensors/.pt file.")] = None,
    resize: Annotated[int | None, typer.Option(min=1, max=4096, help="Shorter side. Default: of the weights.")] = None,
    crop: Annotated[int | None, typer.Option(min=1, max=4096, help="Side of the square cut out of the center.")] = None,
    interpolation: Annotated[str | None, typer.Option(help="nearest, bilinear, bicubic or lanczos.")] = None,
    mean: Annotated[str | None, typer.Option(help="One number or three, of pixels in 0..1.")] = None,
    std: Annotated[str | None, typer.Option(help="One number or three.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=65_536, help="Images that enter the network together.")] = 64,
    dtype: Annotated[str, typer.Option(help="Of the embeddings: float16 or float32.")] = "float16",
    precision: Annotated[str, typer.Option(help="Of the arithmetic: float32, tf32, bfloat16, float16.")] = "float32",
    actors: Annotated[int | None, typer.Option(min=1, max=10_000, help="Default: one per GPU, else per core.")] = None,
    gpus: Annotated[float | None, typer.Option(min=0, max=64, help="GPUs per actor; 0: processors only.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Images per split, evenly spaced over its rows.")] = None,
    shard_size: Annotated[int, typer.Option(min=1, max=1_000_000, help="Images that are saved together.")] = 2048,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at an image that cannot be decoded.")] = False,
    image_column: Annotated[str | None, typer.Option(help="Of Parquet. Default: the only one.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Of Parquet. Default: label.")] = None,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster, e.g. auto.")] = None,
    cpus: Annotated[int | None, typer.Option(min=1, max=100_000, help="Processors to use locally.")] = None,
    dashboard: Annotated[bool, typer.Option(help="Start Ray's dashboard with a local cluster.")] = True,
) -> None:  # fmt: skip
    """Turn images into embeddings. The same command goes on after any interruption."""
    from ray_al.features import parse_request, run_features

    request = parse_request(
        sources, backbone, weights, precision, dtype, out,
        {"resize": resize, "crop": crop, "interpolation": interpolation, "mean": mean, "std": std},
        batch=batch_size, actors=actors, gpus=gpus, limit=limit, shard=shard_size, strict=strict,
        image_column=image_column, label_column=label_column,
    )  # fmt: skip
    try:
        done = run_features(request, console, address, cpus, dashboard)
    except KeyboardInterrupt:
        say("Stopped. Every finished shard is on the disk; the same command goes on from there.")
        raise typer.Exit(130) from None
    say(done.summary(request.out))


def say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
