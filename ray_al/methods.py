"""THE table of strategies, candidate methods and learners: what each is made of and what it needs.

Adding one is one file and one row here; users add theirs by a Python path ("my_pkg.mine:MyStrategy") or an entry point
in the group "ray_al.strategies", "ray_al.candidates" or "ray_al.learners", without a row.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
from collections.abc import Mapping
from typing import Any

from ray_al.learners.cnn import Cnn
from ray_al.learners.committee import LogRegCommittee
from ray_al.learners.convnet13.learner import Convnet13
from ray_al.learners.label_propagation import LabelPropagation
from ray_al.learners.logreg import LogReg
from ray_al.learners.svc import Svc
from ray_al.method import INJECTABLE, Method, arguments, coerce, unknown
from ray_al.strategies.badge import Badge
from ray_al.strategies.candidates import Restricted, Seals
from ray_al.strategies.ceal import Ceal
from ray_al.strategies.full import Full
from ray_al.strategies.jlp import Jlp
from ray_al.strategies.kcenter_greedy import KCenterGreedy
from ray_al.strategies.kmeans_partition import KMeansPartition
from ray_al.strategies.random import Random
from ray_al.strategies.top_score import TopScore
from ray_al.strategies.typiclust import TypiClust

PROBS = frozenset({"probs"})
GRADIENT = frozenset({"probs", "embedding"})
MEMBERS = frozenset({"mc_probs"})
SERVICE = frozenset({"service"})

STRATEGIES: Mapping[str, Method] = {
    "random": Method(Random, "uniform sampling", cold_start=True),
    "entropy": Method(TopScore, "highest predictive entropy", PROBS, fixed={"score": "entropy"}),
    "margin": Method(TopScore, "smallest gap of the two top classes", PROBS, fixed={"score": "margin"}),
    "least_confidence": Method(TopScore, "lowest top probability", PROBS, fixed={"score": "least_confidence"}),
    "bald": Method(TopScore, "highest mutual information of label and model", MEMBERS, fixed={"score": "bald"}),
    "kcenter_greedy": Method(
        KCenterGreedy, "farthest-first traversal (core-set, greedy)", cold_start=True, on_images=False, version=6
    ),
    "kmeans_partition": Method(
        KMeansPartition, "equal random draws per k-means cluster", cold_start=True, on_images=False, version=6
    ),
    "badge": Method(Badge, "k-means++ on gradient embeddings, factorized", GRADIENT, version=8),
    "typiclust": Method(TypiClust, "typical items of uncovered clusters", cold_start=True, on_images=False, version=8),
    "ceal": Method(Ceal, "entropy, and pseudo-labels of the confident", PROBS, fixed={"base": TopScore("entropy")}),
    "jlp": Method(
        Jlp,
        "items that labels reach least over the kNN graph",
        cold_start=True,
        on_images=False,
        neighbor_index=True,
        version=2,
    ),
    "full": Method(Full, "all labels: the upper bound", cold_start=True, whole_pool=True),
}

LEARNERS: Mapping[str, Method] = {
    "logreg": Method(
        LogReg,
        "multinomial logistic regression",
        heads=LogReg.heads,
        on_images=False,
        served=True,
        version=9,
        injected=SERVICE,
    ),
    "logreg_committee": Method(
        LogRegCommittee,
        "logistic regressions on resamples",
        heads=LogRegCommittee.heads,
        on_images=False,
        served=True,
        version=7,
        injected=SERVICE,
    ),
    "svc": Method(Svc, "support vector classifier with grid search", heads=Svc.heads, on_images=False, version=2),
    "label_propagation": Method(
        LabelPropagation,
        "labels spread over the kNN graph",
        heads=LabelPropagation.heads,
        on_images=False,
        served=True,
        neighbor_index=True,
        version=2,
        injected=frozenset({"neighbors"}),
    ),
    "cnn": Method(Cnn, "small convolutional network on images", heads=Cnn.heads, on_images=True, share_fits=True),
    "convnet13": Method(
        Convnet13,
        "13-layer network; DeepCluster and label propagation as options",
        heads=Convnet13.heads,
        on_images=True,
        share_fits=True,
        injected=frozenset({"audit"}),
    ),
}

CANDIDATES: Mapping[str, Method] = {
    "seals": Method(Seals, "nearest neighbors of everything labeled", on_images=False, neighbor_index=True),
}

KINDS: Mapping[str, Mapping[str, Method]] = {"strategy": STRATEGIES, "candidates": CANDIDATES, "learner": LEARNERS}
GROUPS = {"strategy": "ray_al.strategies", "candidates": "ray_al.candidates", "learner": "ray_al.learners"}
VERBS = {"strategy": "select", "candidates": "candidates", "learner": "fit"}


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
    method = Method(
        make,
        (inspect.getdoc(make) or name).splitlines()[0],
        needs=frozenset(getattr(make, "needs", ())),
        cold_start=bool(getattr(make, "cold_start", False)),
        heads=frozenset(getattr(make, "heads", {"probs"})),
        on_images=getattr(make, "on_images", None),
        reads=tuple(getattr(make, "reads", ())),
        neighbor_index=bool(getattr(make, "neighbor_index", False)),
        light=bool(getattr(make, "light", False)),
        share_fits=bool(getattr(make, "share_fits", False)),
        version=int(getattr(make, "version", 1)),
        injected=frozenset(getattr(make, "injected", ())),
    )
    if strange := method.injected - (INJECTABLE if kind == "learner" else set()):
        known = f"a learner may name {', '.join(sorted(INJECTABLE))}"
        raise ValueError(f"{kind} {name!r} cannot be given {', '.join(sorted(strange))} by `injected`; {known}")
    writes = all(callable(getattr(make, verb, None)) for verb in ("save", "load"))
    if method.share_fits and (method.carries or not writes):
        why = "carries weights from round to round" if method.carries else "has no methods save and load"
        raise ValueError(f"{kind} {name!r} {why}, so its fits cannot be shared")
    return method


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
    values, wrong = arguments(kind, name, method, given)
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


def build(kind: str, name: str, values: Mapping[str, Any], **injected: Any) -> Any:
    """Make the object; `injected` reaches only those whose row names it."""
    method = find(kind, name)
    extra = {key: value for key, value in injected.items() if key in method.injected}
    own = {key: value for key, value in values.items() if key in method.options}
    made = method.make(**method.fixed, **coerce(method, own)[0], **extra)
    if kind == "strategy" and (restriction := restriction_of(name, values)):
        options = {key: value for key, value in restriction.items() if key != "name"}
        return Restricted(made, build("candidates", restriction["name"], options))
    return made


def restriction_of(strategy: str, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The option `candidates` among the arguments of a strategy, if it is given and no option of the class's own."""
    found: Mapping[str, Any] | None = values.get("candidates")
    return None if "candidates" in find("strategy", strategy).options else found
