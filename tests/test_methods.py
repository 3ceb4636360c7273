"""The table of methods: which of their arguments a sweep file may give, and which the runner sets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest

from ray_al.method import INJECTABLE, Method
from ray_al.methods import KINDS, build, find, resolve

ROWS = [pytest.param(row, id=f"{kind}-{name}") for kind, rows in KINDS.items() for name, row in rows.items()]


@pytest.mark.parametrize("row", ROWS)
def test_every_field_is_an_option_unless_the_row_says_otherwise(row: Method) -> None:
    fields = {field.name: field for field in dataclasses.fields(row.make) if field.init}
    assert set(row.options) == set(fields) - set(row.fixed) - row.injected
    assert row.injected <= INJECTABLE & set(fields)
    for name in row.injected:  # a sweep file goes without it: what an option would hold is never injected
        assert fields[name].default is None, name


def test_an_option_may_have_the_name_of_what_others_are_given() -> None:
    values, faults = resolve("strategy", "typiclust", {"neighbors": 10})
    assert (values["neighbors"], faults) == (10, [])
    assert build("strategy", "typiclust", values).neighbors == 10


@dataclass(frozen=True)
class Own:
    neighbors: int = 7
    service: str = "none"
    audit: Any = None

    injected = frozenset({"audit"})

    def fit(self) -> None: ...


def test_a_class_of_the_users_names_what_it_is_given() -> None:
    values, faults = resolve("learner", "tests.test_methods:Own", {"service": "mine"})
    assert (values, faults) == ({"neighbors": 7, "service": "mine"}, [])
    made = build("learner", "tests.test_methods:Own", values, neighbors=object(), service=object(), audit=len)
    assert made == Own(7, "mine", len)


class Misspelled(Own):
    injected = frozenset({"servce"})

    def select(self) -> None: ...


class Strategy(Own):
    def select(self) -> None: ...


def test_what_nobody_has_to_give_is_refused() -> None:
    for kind, name, wrong in (("learner", "Misspelled", "servce"), ("strategy", "Strategy", "audit")):
        (fault,) = resolve(kind, f"tests.test_methods:{name}", {})[1]
        assert f"cannot be given {wrong} by `injected`; a learner may name audit, neighbors, service" in fault


class OnImages:
    on_images = True

    def select(self) -> None: ...


def test_an_own_method_says_what_its_space_holds() -> None:
    assert find("strategy", "tests.test_methods:OnImages").on_images is True
    assert find("learner", "tests.test_methods:Own").on_images is None
