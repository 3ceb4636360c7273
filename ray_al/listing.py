"""What `ray-al list` prints: every name that a sweep file may use, with its options and their defaults."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from ray_al.data.sources import DATASETS, data_names
from ray_al.data.space_definitions import METHODS
from ray_al.data.spaces import BUILT_IN, SpaceSpec
from ray_al.data.subsets import OPTION_CHECKS, Options
from ray_al.generative.vae import VaeSettings
from ray_al.methods import CANDIDATES, LEARNERS, STRATEGIES, Method


def listing() -> Iterator[Table | str]:
    """Strategies, candidates, learners, datasets and spaces: a title and a table each."""
    yield "An option is shown as name=default, or as its name alone where it must be given."
    yield from _part("strategies", _methods(STRATEGIES, "needs"))
    yield from _part("candidates: an option of every strategy but full", _methods(CANDIDATES, "needs"))
    yield from _part("learners", _methods(LEARNERS, "heads"))
    datasets = {
        name: _lines(source.summary, options=_options(source.load, source.options, source.required))
        for name, source in DATASETS.items()
    }
    datasets["<name>"] = _lines(
        "<name>.npz in the folder that RAY_AL_DATA names", there=", ".join(n for n in data_names() if n not in DATASETS)
    )
    datasets["module:function"] = _lines("your own; its arguments are its options")
    datasets["any of these"] = _lines(options=f"{_options(Options, OPTION_CHECKS)}, label=null")
    yield from _part("datasets", datasets)
    spaces = {"built in": ", ".join(BUILT_IN)}
    for name, (checks, required) in METHODS.items():
        make = VaeSettings if name == "vae" else SpaceSpec
        spaces[f"{{name: {name}}}"] = _lines(options=_options(make, checks, required))
    yield from _part("spaces", spaces)


def _methods(rows: Mapping[str, Method], heads: str) -> dict[str, str]:
    return {
        name: _lines(
            row.summary, **{heads: ", ".join(sorted(row.needs | row.heads))}, options=_options(row.make, row.options)
        )
        for name, row in rows.items()
    }


def _options(make: Callable[..., Any], names: Iterable[str], required: Iterable[str] = ()) -> str:
    """`names`, with the defaults of the arguments of `make` that are called so."""
    defaults = {name: argument.default for name, argument in inspect.signature(make).parameters.items()}
    plain = {name for name in names if defaults[name] is inspect.Parameter.empty} | set(required)
    return ", ".join(name if name in plain else f"{name}={_value(defaults[name])}" for name in names)


def _value(value: Any) -> str:
    """As a sweep file writes it, without spaces: lines are broken at those."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _lines(about: str = "", **facts: str) -> str:
    return "\n".join([about] * bool(about) + [f"{key}: {value}" for key, value in facts.items() if value])


def _part(title: str, rows: Mapping[str, str]) -> Iterator[Table | str]:
    yield f"\n[bold]{title}[/]"
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, about in rows.items():
        table.add_row(escape(name), escape(about))
    yield table
