"""THE table of strategies, candidate methods and learners: what each is made of and what it needs.

Adding one is one file and one row here; users add theirs by a Python path ("my_pkg.mine:MyStrategy") or an entry point
in the group "ray_al.strategies", "ray_al.candidates" or "ray_al.learners", without a row.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import importlib.metadata
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from ray_al.learners.cnn import Cnn
from ray_al.learners.committee import LogRegCommittee
from ray_al.learners.logreg import LogReg
from ray_al.learners.svc import Svc
from ray_al.strategies.badge import Badge
from ray_al.strategies.candidates import Restricted, Seals
from ray_al.strategies.full import Full
from ray_al.strategies.kcenter_greedy import KCenterGreedy
from ray_al.strategies.kmeans_partition import KMeansPartition
from ray_al.strategies.random import Random
from ray_al.strategies.top_score import TopScore
from ray_al.strategies.typiclust import TypiClust


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
    neighbor_index: bool = False  # it asks `round.neighbors`
    served: bool = False  # fitted and applied by services: the trial's process stays light
    version: int = 1  # part of every trajectory's identity: raise it when results change
    fixed: Mapping[str, Any] = field(default_factory=dict)  # arguments that the row decides, not the user

    @property
    def options(self) -> list[str]:
        """Names of the arguments that a sweep file may give."""
        names = inspect.signature(self.make).parameters
        return [name for name in names if name not in self.fixed and name not in INJECTED]


INJECTED = frozenset({"service"})  # set by the runner, never by a sweep file
PROBS = frozenset({"probs"})
GRADIENT = frozenset({"probs", "embedding"})
MEMBERS = frozenset({"mc_probs"})

STRATEGIES: Mapping[str, Method] = {
    "random": Method(Random, "uniform sampling", cold_start=True),
    "entropy": Method(TopScore, "highest predictive entropy", PROBS, fixed={"score": "entropy"}),
    "margin": Method(TopScore, "smallest gap of the two top classes", PROBS, fixed={"score": "margin"}),
    "least_confidence": Method(TopScore, "lowest top probability", PROBS, fixed={"score": "least_confidence"}),
    "bald": Method(TopScore, "highest mutual information of label and model", MEMBERS, fixed={"score": "bald"}),
    "kcenter_greedy": Method(
        KCenterGreedy, "farthest-first traversal (core-set, greedy)", cold_start=True, on_images=False, version=2
    ),
    "kmeans_partition": Method(
        KMeansPartition, "equal random draws per k-means cluster", cold_start=True, on_images=False, version=2
    ),
    "badge": Method(Badge, "k-means++ on gradient embeddings, factorized", GRADIENT, version=2),
    "typiclust": Method(TypiClust, "typical items of uncovered clusters", cold_start=True, on_images=False, version=2),
    "full": Method(Full, "all labels: the upper bound", cold_start=True, whole_pool=True),
}

LEARNERS: Mapping[str, Method] = {
    "logreg": Method(
        LogReg, "multinomial logistic regression", heads=LogReg.heads, on_images=False, served=True, version=2
    ),
    "logreg_committee": Method(
        LogRegCommittee, "logistic regressions on resamples", heads=LogRegCommittee.heads, on_images=False, served=True
    ),
    "svc": Method(Svc, "support vector classifier with grid search", heads=Svc.heads, on_images=False),
    "cnn": Method(Cnn, "small convolutional network on images", heads=Cnn.heads, on_images=True),
}

CANDIDATES: Mapping[str, Method] = {
    "seals": Method(Seals, "nearest neighbors of everything labeled", on_images=False, neighbor_index=True),
}

KINDS: Mapping[str, Mapping[str, Method]] = {"strategy": STRATEGIES, "candidates": CANDIDATES, "learner": LEARNERS}
GROUPS = {"strategy": "ray_al.strategies", "candidates": "ray_al.candidates", "learner": "ray_al.learners"}
VERBS = {"strategy": "select", "candidates": "candidates", "learner": "fit"}


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not in a table, with the nearest known one."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    # "coreset" names a family; people who type it mean its greedy form.
    guess = {"coreset": "kcenter_greedy", "core_set": "kcenter_greedy"}.get(name.lower()) or (near[0] if near else None)
    hint = f"; did you mean {guess!r}?" if guess in names else ";"
    return f"unknown {kind} {name!r}{hint} known: {', '.join(names)}"


@functools.cache
def find(kind: str, name: str) -> Method:
    """Look up a method by table name, Python path "module:Class" or entry point.

    Raises:
        ValueError: there is none, or its module cannot be imported.
    """
    table = KINDS[kind]
    if name in table:
        return table[name]
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return _user_method(kind, name, getattr(importlib.import_module(module), attribute))
        except Exception as error:  # importing runs the user's module, which may raise anything
            raise ValueError(f"cannot load {kind} {name!r}: {error}") from error
    entries = {entry.name: entry for entry in importlib.metadata.entry_points(group=GROUPS[kind])}
    if name in entries:
        try:
            return _user_method(kind, name, entries[name].load())
        except Exception as error:
            raise ValueError(f"cannot load {kind} {name!r} of entry point {entries[name].value}: {error}") from error
    raise ValueError(unknown(kind, name, [*table, *entries]))


def _user_method(kind: str, name: str, make: Any) -> Method:
    """A user's class states what it needs in class attributes, named as the columns of the table."""
    verb = VERBS[kind]
    if not callable(make) or not callable(getattr(make, verb, None)):
        raise ValueError(f"{kind} {name!r} is not a class with a method {verb!r}")
    return Method(
        make,
        (inspect.getdoc(make) or name).splitlines()[0],
        needs=frozenset(getattr(make, "needs", ())),
        cold_start=bool(getattr(make, "cold_start", False)),
        heads=frozenset(getattr(make, "heads", {"probs"})),
        reads=tuple(getattr(make, "reads", ())),
        neighbor_index=bool(getattr(make, "neighbor_index", False)),
        version=int(getattr(make, "version", 1)),
    )


def resolve(kind: str, name: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Check the options of a method: (all its arguments, defaults filled in; faults).

    Every strategy has the option `candidates`, which is among the arguments only when it is given.
    """
    try:
        method = find(kind, name)
    except ValueError as error:
        return {}, [str(error)]
    restriction, faults = dict[str, Any](), list[str]()
    if kind == "strategy" and "candidates" not in method.options:
        if given.get("candidates") is not None:
            restriction, faults = _candidates(name, method, given["candidates"])
        given = {key: value for key, value in given.items() if key != "candidates"}
    values, wrong = _arguments(kind, name, method, given)
    return ({} if faults or wrong else {**values, **restriction}), [*faults, *wrong]


def _candidates(strategy: str, method: Method, given: Any) -> tuple[dict[str, Any], list[str]]:
    """The option `candidates` of a strategy, all its arguments filled in."""
    entry = {"name": given} if isinstance(given, str) else given
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        return {}, [f"strategy {strategy}: candidates is a name or {{name: seals, k: 100}}, got {given!r}"]
    if method.whole_pool:
        return {}, [f"strategy {strategy} asks for the whole pool; candidates would keep it from doing so"]
    name = entry["name"]
    values, faults = resolve("candidates", name, {key: value for key, value in entry.items() if key != "name"})
    return {"candidates": {"name": name, **values}}, [f"strategy {strategy}: {fault}" for fault in faults]


def _arguments(kind: str, name: str, method: Method, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
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
    arguments, wrong = _coerce(method, {key: value for key, value in given.items() if key in options})
    faults += [f"option {key!r} of {kind} {name}: {fault}, got {given[key]!r}" for key, fault in wrong.items()]
    if faults:
        return {}, faults
    try:
        made = method.make(**method.fixed, **arguments)
    except Exception as error:  # whatever a user's class raises of its arguments is a fault of the file
        return {}, [str(error) or f"{kind} {name} cannot be made: {type(error).__name__}"]
    filled = {key: getattr(made, key, arguments.get(key, signature[key].default)) for key in options}
    try:
        return json.loads(json.dumps(filled)), []
    except TypeError:
        return {}, [f"{kind} {name}: its options must be plain values (numbers, texts, lists), got {filled}"]


def build(kind: str, name: str, values: Mapping[str, Any], **injected: Any) -> Any:
    """Make the object; `injected` reaches only those that take it."""
    method = find(kind, name)
    takes = inspect.signature(method.make).parameters
    extra = {key: value for key, value in injected.items() if key in takes}
    own = {key: value for key, value in values.items() if key in method.options}
    made = method.make(**method.fixed, **_coerce(method, own)[0], **extra)
    if kind == "strategy" and (restriction := restriction_of(name, values)):
        arguments = {key: value for key, value in restriction.items() if key != "name"}
        return Restricted(made, build("candidates", restriction["name"], arguments))
    return made


def restriction_of(strategy: str, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The option `candidates` among the arguments of a strategy, if it is given and no option of the class's own."""
    found: Mapping[str, Any] | None = values.get("candidates")
    return None if "candidates" in find("strategy", strategy).options else found


def _coerce(method: Method, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
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
