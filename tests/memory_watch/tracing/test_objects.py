"""Looks at the real objects of this process: counted, found, named, and not kept."""

import gc
import sys
import weakref
from collections import deque
from typing import ClassVar

import pytest

from perf_middleware.memory_watch.tracing.drivers import objects
from perf_middleware.memory_watch.tracing.drivers.objects import (
    count_types,
    look_at_containers,
    name_holders,
    type_name,
)

SEEN = [0] * 1_500
PLAIN = {number: number for number in range(1_500)}
NESTED = {"by user": {"lines": [None] * 1_500}}


class Order:
    pass


class Basket:
    shared: ClassVar = deque([0] * 1_500)

    def __init__(self):
        self.lines = [0] * 1_500


class Slotted:
    __slots__ = ("__weakref__", "empty", "lines")

    def __init__(self):
        self.lines = {str(number): [] for number in range(1_500)}


class Hostile:
    """Says nothing of itself, and fails whoever asks."""

    def __init__(self):
        object.__setattr__(self, "held", [0] * 1_500)

    def __getattribute__(self, name):
        raise RuntimeError("asked for " + name)

    def __len__(self):
        raise RuntimeError("asked for its length")

    def __eq__(self, other):
        raise RuntimeError("compared")

    __hash__ = None


def make_closure():
    seen = [0] * 1_500

    def add():
        seen.append(1)
        return seen

    return add


def name_of(found):
    identity = id(found)
    del found
    return name_holders(frozenset([identity])).get(identity)


def test_objects_are_counted_by_the_name_of_their_type():
    orders = [Order() for _ in range(1_234)]
    before = count_types()
    name = f"{__name__}.Order"
    assert before[name] == 1_234
    assert before["list"] > 100
    del orders
    assert count_types().get(name, 0) == 0


def test_a_look_keeps_nothing_alive():
    order = Order()
    dead = weakref.ref(order)
    count_types()
    look_at_containers()
    name_of(SEEN)
    del order
    assert dead() is None


@pytest.mark.parametrize("kind", [list, type, Order])
def test_a_type_is_named_with_its_module_where_that_says_something(kind):
    expected = {list: "list", type: "type"}.get(kind, f"{__name__}.Order")
    assert type_name(kind) == expected


@pytest.mark.usefixtures("thawed")
def test_long_containers_are_seen_also_a_dict_of_plain_values():
    look = look_at_containers()
    assert look[id(SEEN)] == ("list", 1_500)
    assert look[id(PLAIN)] == ("dict", 1_500)
    assert look[id(Basket.shared)] == ("deque", 1_500)
    assert id(sys.argv) not in look
    assert len(look_at_containers(containers_max=3)) == 3


@pytest.mark.usefixtures("thawed")
def test_a_container_is_named_by_who_holds_it():
    basket, slotted, add = Basket(), Slotted(), make_closure()
    here = __name__
    assert name_of(SEEN) == f"{here}.SEEN"
    assert name_of(PLAIN) == f"{here}.PLAIN"
    assert name_of(basket.lines) == f"{here}.Basket.lines"
    vars(basket)  # its dict exists from now on
    assert name_of(basket.lines) == f"{here}.Basket.lines"
    assert name_of(slotted.lines) == f"{here}.Slotted.lines"
    assert name_of(Basket.shared) == f"{here}.Basket.shared"
    assert name_of(add()) == f"{here}.make_closure.<locals>.seen"
    assert name_of(NESTED["by user"]["lines"]) == f"{here}.NESTED[…].lines"


def test_what_only_a_running_function_holds_has_no_name():
    local = [0] * 1_500
    assert name_of(local) is None
    assert name_holders(frozenset([1])) == {}


def test_objects_that_refuse_to_be_looked_at_do_no_harm():
    hostile = Hostile()
    held = object.__getattribute__(hostile, "held")
    assert count_types()[f"{__name__}.Hostile"] == 1
    look_at_containers()
    assert name_of(held) == f"{__name__}.Hostile.held"


def test_searches_for_holders_are_bounded(monkeypatch):
    asked = []
    real = gc.get_referrers
    monkeypatch.setattr(objects.gc, "get_referrers", lambda *of: asked.append(1) or real(*of))
    many = [[0] * 10 for _ in range(100)]
    name_holders(frozenset(map(id, many)))
    assert 0 < len(asked) <= objects.SEARCHES_MAX
