"""A row of the table of methods, and the options that a sweep file may give it: checked, converted, filled in."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints


@dataclass(frozen=True)
class Method:
    """A row: how to make a method, and what the checks before a run must know of it."""

    make: Callable[..., Any]
    summary: str
    needs: frozenset[str] = frozenset()  # heads a strategy reads from the model
    cold_start: bool = False  # a strategy that can choose the first batch, before any label
    whole_pool: bool = False  # asks for everything in one round, whatever the protocol
    heads: frozenset[str] = frozenset()  # heads a learner's models offer
    reads: tuple[str, ...] = ()  # spaces it reads besides the one named by its option `space`
    on_images: bool | None = None  # whether its space holds images, or vectors; None: not checked
    neighbor_index: bool = False  # it asks the neighbor service
    served: bool = False  # fitted and applied by services: the trial's process stays light
    light: bool = True  # a strategy that computes little itself, and may do so in threads of one process
    share_fits: bool = False  # a first fit takes long enough to be stored for others (`ShareableLearner`)
    version: int = 1  # part of every trajectory's identity: raise it when results change
    fixed: Mapping[str, Any] = field(default_factory=dict)  # arguments that the row decides, not the user
    injected: frozenset[str] = frozenset()  # arguments of `INJECTABLE` that the runner sets, not the user

    @property
    def options(self) -> list[str]:
        """Names of the arguments that a sweep file may give."""
        names = inspect.signature(self.make).parameters
        return [name for name in names if name not in self.fixed and name not in self.injected]

    @property
    def carries(self) -> bool:
        """Whether it is a learner whose fits depend on those before."""
        stateful = all(callable(getattr(self.make, verb, None)) for verb in ("state", "restore"))
        return stateful and not getattr(self.make, "starts_afresh", False)


INJECTABLE = frozenset({"service", "neighbors", "audit"})  # what the runner has for a learner


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not in a table, with the nearest known one."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    # "coreset" names a family; people who type it mean its greedy form.
    guess = {"coreset": "kcenter_greedy", "core_set": "kcenter_greedy"}.get(name.lower()) or (near[0] if near else None)
    hint = f"; did you mean {guess!r}?" if guess in names else ";"
    return f"unknown {kind} {name!r}{hint} known: {', '.join(names)}"


def arguments(kind: str, name: str, method: Method, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """All arguments of a method with the options `given`, defaults filled in, as plain values; and the faults."""
    signature = inspect.signature(method.make).parameters
    options = method.options
    faults = [
        unknown(f"option of {kind} {name}", key, options) if options else f"{kind} {name} takes no option {key!r}"
        for key in given
        if key not in options
    ]
    for key in options:
        if signature[key].default is inspect.Parameter.empty and key not in given:
            faults.append(f"{kind} {name} needs the option {key!r}")
    values, wrong = coerce(method, {key: value for key, value in given.items() if key in options})
    faults += [f"option {key!r} of {kind} {name}: {fault}, got {given[key]!r}" for key, fault in wrong.items()]
    if faults:
        return {}, faults
    try:
        made = method.make(**method.fixed, **values)
    except Exception as error:  # whatever a user's class raises of its arguments is a fault of the file
        return {}, [str(error) or f"{kind} {name} cannot be made: {type(error).__name__}"]
    filled = {key: getattr(made, key, values.get(key, signature[key].default)) for key in options}
    try:
        return json.loads(json.dumps(filled)), []
    except TypeError:
        return {}, [f"{kind} {name}: its options must be plain values (numbers, texts, lists), got {filled}"]


def coerce(method: Method, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Values as the annotations want them (1 as 1.0, a list as a tuple), and what cannot be."""
    from pydantic import PydanticUserError, TypeAdapter, ValidationError

    hints = _hints(method.make)
    out, faults = {}, {}
    for key, value in values.items():
        out[key] = value
        if key in hints:
            try:
                out[key] = TypeAdapter(hints[key]).validate_json(json.dumps(value), strict=True)
            except ValidationError as error:
                message = error.errors()[0]["msg"]
                faults[key] = message[0].lower() + message[1:]
            except TypeError:
                faults[key] = "must be a plain value"
            except PydanticUserError:
                continue  # a type that pydantic has no check for
    return out, faults


def _hints(make: Any) -> dict[str, Any]:
    try:
        return get_type_hints(make.__init__ if inspect.isclass(make) and not dataclasses.is_dataclass(make) else make)
    except (NameError, TypeError):
        return {}  # a user's annotations that cannot be evaluated here are not checked
