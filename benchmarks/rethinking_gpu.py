"""Rethinking deep active learning on one GPU: seconds per SEMI epoch of CIFAR-10, and base against PRE+SEMI.

    python -m benchmarks.rethinking_gpu split cifar10.npz parts --mib 60       # pieces that are small enough to send
    python -m benchmarks.rethinking_gpu run parts --limit 540 --epochs 60      # needs torch and numpy alone
    python -m benchmarks.rethinking_gpu run parts --device cpu --quick         # does it run?

`run` takes a file or a folder of pieces. First, label propagation on the device is checked against a dense solve; then
a few SEMI epochs of the full network are timed; then DeepCluster runs, once, and active learning begins: every cycle of
every seed under base and PRE+SEMI, random and one other strategy, the lower cycles first. The first cycle is shared by
the strategies. Everything is written to --out as soon as it is known, with the picks of the next cycle, and the weights
of DeepCluster beside it; a second `run` with the same --out goes on from there. --limit is in seconds; no training is
begun that is not expected to end within it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import machine
from benchmarks.rethinking_parts import Bench, Settings, load, split_file

CYCLES = 5
RESULTS = Path(__file__).parent / "results" / "rethinking_gpu.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    cut = verbs.add_parser("split")
    cut.add_argument("file", type=Path)
    cut.add_argument("folder", type=Path)
    cut.add_argument("--mib", type=float, default=60)
    go = verbs.add_parser("run")
    go.add_argument("data", type=Path)
    go.add_argument("--out", type=Path, help="default: results/rethinking_gpu.json, of --quick a temporary file")
    go.add_argument("--device", default="cuda")
    go.add_argument("--limit", type=float, default=540)
    go.add_argument("--epochs", type=int, default=60, help="of SEMI in every cycle; the paper has 200")
    go.add_argument("--sup-epochs", type=int, default=200, help="of base, and of SUP before SEMI")
    go.add_argument("--pre-epochs", type=int, default=60, help="of DeepCluster; the paper has 250")
    go.add_argument("--cycles", type=int, default=CYCLES)
    go.add_argument("--seeds", type=int, default=1)
    go.add_argument("--batch", type=int, default=100, help="labels of a cycle")
    go.add_argument("--strategy", default="entropy", choices=["entropy", "kcenter_greedy"], help="beside random")
    go.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    go.add_argument("--quick", action="store_true", help="400 images, a narrow network, 2 epochs, 2 cycles")
    args = parser.parse_args()
    try:
        if args.verb == "split":
            print(*split_file(args.file, args.folder, args.mib), sep="\n")
        else:
            run(args)
    except FileNotFoundError as error:
        parser.exit(2, f"error: {error}\n")


def run(args: argparse.Namespace) -> None:
    started = time.monotonic()
    if args.quick:
        args.epochs, args.sup_epochs, args.pre_epochs, args.cycles, args.batch = 2, 2, 2, 2, 20
    out = args.out or Path(tempfile.mkdtemp()) / "quick.json" if args.quick else args.out or RESULTS
    settings = Settings(args.epochs, args.sup_epochs, args.pre_epochs, args.batch, args.strategy, args.precision)
    data = load(args.data, 400 if args.quick else None)
    bench = Bench(data, settings, torch.device(args.device), 8 if args.quick else 128)
    record: dict[str, Any] = json.loads(out.read_text()) if out.is_file() else {}
    if record.get("settings", settings.to_json()) != settings.to_json():
        raise SystemExit(f"{out} holds results of other settings: {record['settings']}; give another --out")
    record |= {"machine": machine(("numpy", "torch")), "device": bench.device_name(), "settings": settings.to_json()}

    def keep(key: str, value: Any) -> None:
        record[key] = value
        out.write_text(json.dumps(record, indent=1) + "\n")
        print(f"{time.monotonic() - started:6.0f} s  {key}: {json.dumps(value)[:300]}", flush=True)

    def left() -> float:
        return args.limit - (time.monotonic() - started)

    if "check" not in record:
        keep("check", bench.check())
    if "timing" not in record:
        keep("timing", bench.timing(3 if args.quick else 6))
    expected = bench.expected(record["timing"])
    weights = out.with_suffix(".pre.npz")
    if weights.is_file():
        body = bench.body_of(weights)
    elif left() > expected["pre"]:
        body, epochs = bench.pretrain(weights)
        keep("pre", {"epochs": len(epochs), "first": epochs[0], "last": epochs[-1]})
    else:
        print("no time is left for DeepCluster; call again")
        return
    cells = record.get("cells", {})
    for name, setting, seed, cycle, strategy in bench.plan(args.seeds, args.cycles):
        if name in cells:
            continue
        if left() < expected[setting]:
            print(f"no time is left for {name}; call again")
            return
        ids = bench.labeled(cells, setting, seed, cycle, strategy)
        cells[name] = bench.cell(ids, setting, seed, cycle, body)
        keep("cells", cells)
        shown = {key: value for key, value in cells[name].items() if key != "picks"}
        print(f"        {name}: {json.dumps(shown)}", flush=True)
    keep("summary", summary(cells))


def summary(cells: dict[str, Any]) -> dict[str, Any]:
    """Mean accuracy of every setting, strategy and cycle; the first cycle belongs to all strategies."""
    found: dict[str, list[float]] = {}
    for name, cell in cells.items():
        setting, _, strategy, cycle = name.split("/")
        found.setdefault(f"{setting}/{strategy}/{cycle}", []).append(cell["accuracy"])
    return {name: {"mean": float(np.mean(values)), "seeds": len(values)} for name, values in found.items()}


if __name__ == "__main__":
    main()
