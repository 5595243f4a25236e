"""The weak cache: one object per key, and only while somebody holds it."""

import gc
from dataclasses import dataclass

import pytest

from perf_middleware.memory_watch.structures.stores.weak import WeakCache
from tests.memory_watch.structures.threads import together


class Thing:
    def __init__(self, name=""):
        self.name = name


def test_a_value_is_there_while_somebody_holds_it():
    cache = WeakCache()
    thing = cache.get_or_make("a", Thing)
    assert cache.get_or_make("a", Thing) is thing
    assert cache.get("a") is thing
    assert "a" in cache
    assert cache.keys() == ["a"]
    del thing
    gc.collect()
    assert cache.get("a") is None
    assert (len(cache), cache.keys()) == (0, [])
    assert (cache.hits, cache.misses) == (2, 2)


def test_equal_things_become_one_object():
    cache = WeakCache()
    first = cache.intern("a", Thing("a"))
    assert cache.intern("a", Thing("a")) is first
    cache.put("a", other := Thing("b"))
    assert cache.get("a") is other
    assert cache.pop("a") is other
    assert cache.pop("a") is None
    cache.put("a", other)
    cache.clear()
    assert cache.get("a") is None


@dataclass(slots=True)
class Slotted:
    name: str = ""


@dataclass(slots=True, weakref_slot=True)
class Referable:
    name: str = ""


@pytest.mark.parametrize("value", [1, "a", (1,), [1], {}, None, Slotted()], ids=repr)
def test_what_cannot_be_weakly_referenced_is_told_with_what_to_do(value):
    cache = WeakCache()
    for attempt in (
        lambda: cache.put("a", value),
        lambda: cache.intern("a", value),
        lambda: cache.get_or_make("a", lambda: value),
    ):
        with pytest.raises(TypeError, match="weakref_slot=True"):
            attempt()
    assert len(cache) == 0


def test_slots_with_a_weak_reference_are_well():
    cache = WeakCache()
    kept = cache.get_or_make("a", Referable)
    assert cache.get("a") is kept


def test_a_key_that_is_made_anew_while_its_old_value_dies_stays():
    cache, made_anew = WeakCache(), []

    class Dies:
        def __init__(self):
            self.me = self  # only a collection ends it: its weak references are cleared first

        def __del__(self):
            assert cache.get("a") is None
            made_anew.append(cache.get_or_make("a", Thing))

    cache.put("a", Dies())
    gc.collect()
    assert len(made_anew) == 1
    assert cache.get("a") is made_anew[0]
    gc.collect()
    assert cache.get("a") is made_anew[0]


def test_what_is_put_during_a_making_is_newer():
    cache, newer = WeakCache(), Thing()

    def make():
        cache.put("a", newer)
        return Thing("older")

    assert cache.get_or_make("a", make).name == "older"
    assert cache.get("a") is newer


def test_many_threads_never_hold_two_objects_of_one_key():
    cache = WeakCache()
    held = [{} for _ in range(4)]

    def hammer(number):
        mine = held[number]
        for step in range(2_000):
            key = step % 5
            value = cache.get_or_make(key, lambda key=key: Thing(key))
            assert value.name == key
            # While it is held, nobody gets another one.
            assert cache.get_or_make(key, Thing) is value
            if step % 3:
                mine[key] = value
            else:
                mine.pop(key, None)

    together(4, hammer)
    for key in range(5):
        assert len({id(mine[key]) for mine in held if key in mine}) <= 1


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda cache, key: cache.intern(key, Thing()), id="intern"),
        pytest.param(lambda cache, key: cache.get_or_make(key, Thing), id="make"),
    ],
)
def test_threads_that_race_for_a_key_get_one_object(ask):
    cache = WeakCache()
    given = together(4, lambda _: [ask(cache, key) for key in range(3_000)])
    assert all(len(set(map(id, one))) == 1 for one in zip(*given, strict=True))
