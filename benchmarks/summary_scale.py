"""Sections of benchmarks/README.md on services, large pools and clusters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)])


def where(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items() if k != "ray-al")
    load = "load not recorded" if machine["load_before"] is None else f"load before {machine['load_before']}"
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB; "
        f"Python {machine['python']}, {versions}; {machine['date']}, {load}."
    )


def plain(value: Any) -> str:
    """A number or word as a cell of a table."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def flat(cell: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """One level of names: {"a": {"b": 1}} becomes {"a b": 1}."""
    found: dict[str, Any] = {}
    for key, value in cell.items():
        name = f"{before}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            found |= flat(value, f"{name} ")
        elif not isinstance(value, list):
            found[name] = value
    return found


def cells(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of dicts: a column for each name that any of them has."""
    flattened = [flat(row) for row in rows]
    head = list(dict.fromkeys(name for row in flattened for name in row))
    return table(head, [[plain(row.get(name)) for name in head] for row in flattened])


def fused(result: dict[str, Any]) -> str:
    rows = [
        (
            f"{c['n']:,}", c["classes"], c["dtype"], *(f"{c['requests_per_second'][s]:.3g}" for s in ("fused", "one by one", "usual")),
            f"{c['to_one_by_one']:.1f}x", f"{c['to_usual']:.1f}x",
            f"{c['bytes_read']['fused'] / 2**20:.0f} of {c['bytes_read']['one by one'] / 2**20:.0f}",
            f"{100 * c['bandwidth_used']:.0f}%", f"{100 * c['bandwidth_saved']:.0f}%", plain(c["bit_identical"]),
        )
        for c in result["cells"]
    ]  # fmt: skip
    head = (
        "rows of 512", "classes", "type", "fused, requests/s", "one by one", "usual torch", "to one by one", "to usual",
        "MB read", "of bandwidth", "had each read", "equal bits",
    )  # fmt: skip
    return f"""## One pass for {result["trajectories"]} trajectories

{where(result["machine"])} `python -m benchmarks.fused`

Each asks for its {result["top"]} most uncertain items under a head of its own: at the same time, one after the other through the same kernel, and with
softmax, entropy and topk of torch, one after the other. "Of bandwidth": bytes really read a second, to what the machine reads at most; "had each
read": the same if every trajectory had read the rows itself.

{table(head, rows)}"""


def large_pool(result: dict[str, Any]) -> str:
    select = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result["seconds_select"].items())
    peak = result["peak_gib"]
    return f"""## A pool of {result["rows"]:,} x {result["width"]} {result["dtype"]}

{where(result["machine"])} `python -m benchmarks.large_pool`

{len(result["seconds_select"])} strategies at once, {result["rounds"]} rounds of {result["batch"]} labels, 200 classes, rows memory-mapped: {result["seconds"]:.0f} s for the whole command on empty storage.
Selection a round, while the others run: {select}; a fit {result["seconds_fit"]:.1f} s. Processes hold at most {peak["anonymous"]:.1f} GiB of their own, the object store {peak["shared"]:.1f} GiB."""


def node_kills(result: dict[str, Any]) -> str:
    count = ", ".join(f"{part} {n}" for part, n in sorted(result["faults"].items()))
    outcome = "equaled those of an undisturbed run" if result["equal"] else "DIFFERED from those of an undisturbed run"
    return f"""## Faults of a cluster at random moments

{where(result["machine"])} `python -m benchmarks.node_kills`

Three machines in network namespaces, {result["sweeps"]} sweeps, {sum(result["faults"].values())} faults ({count}): the results {outcome}."""


LISTINGS = {
    "neighbors": "Neighbor graphs",
    "candidates": "Rounds over candidates alone",
    "label_propagation": "Label propagation",
    "fits": "Fits of logistic regression",
    "cg_tolerance": "Pseudo-labels of solves that stop early",
    "features": "Images to embeddings",
    "vae": "Auto-encoder and k-means partition",
    "svc": "SVC with grid search against scikit-learn's",
}  # results that need no section of their own making


def listing(title: str, name: str, result: dict[str, Any]) -> str:
    """All that a result holds: single values as a line; lists of dicts, and dicts of dicts by name, as tables."""
    rest = {key: value for key, value in result.items() if key != "machine"}
    tables = {key: rows for key, value in rest.items() if (rows := _rows(key, value))}
    values = flat({key: value for key, value in rest.items() if key not in tables})
    line = "; ".join(f"{key} {plain(value)}" for key, value in values.items())
    head = [f"## {title}", f"{where(result['machine'])} `python -m benchmarks.{name}`"]
    return "\n\n".join([*head, *([line] if line else []), *map(cells, tables.values())])


def _rows(key: str, value: Any) -> list[Mapping[str, Any]]:
    if isinstance(value, Mapping) and all(isinstance(row, Mapping) for row in value.values()):
        return [{key: name, **row} for name, row in value.items()]
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return value
    return []
