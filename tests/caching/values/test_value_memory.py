"""The memory's own: bounds, threads, what leaves, and how each caller gets a value of his own."""

import gc
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import NamedTuple
from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from perf_middleware.caching.values.kept import ENTRY_BYTES, Kept, Terms, is_immutable
from perf_middleware.caching.values.patterns import matcher
from perf_middleware.caching.values.sizes import size_bytes
from perf_middleware.caching.values.stores.memory import MemoryStore

US = 1_000_000
KEEP = Terms(ttl_us=60 * US)


def store(bytes_max=1 << 20, entries_max=1000, clock=lambda: 0):
    return MemoryStore(bytes_max=bytes_max, entries_max=entries_max, clock=clock)


class Color(Enum):
    RED = 1


class Point(NamedTuple):
    x: object
    y: object


@dataclass(frozen=True)
class Frozen:
    a: object


class Below(Frozen):
    def __init__(self):
        super().__init__(1)
        self.b = []


@dataclass(frozen=True)
class Text:
    text: str

    @cached_property
    def words(self):
        return self.text.split()


class Named(Point):
    def __init__(self, *_args):
        self.more = []


@dataclass
class Row:
    a: object


class Model(BaseModel):
    a: list[int]


IMMUTABLE = [
    "a", 1, None, (1, ("a",)), frozenset({1}), Color.RED, Decimal(1), Point(1, 2), Frozen(1),
    Frozen((1, Color.RED)), len, int, (Frozen(1),),
]  # fmt: skip
MUTABLE = [
    [1], {"a": 1}, {1}, bytearray(b"a"), deque([1]), ([1],), Point([1], 2), Frozen([1]), Row(1),
    Model(a=[1]), {"a": [1]}, OrderedDict(a=1), [Row([1])], Below(), Text("a b"), Named(1, 2),
]  # fmt: skip


@pytest.mark.parametrize("value", IMMUTABLE, ids=repr)
def test_what_nobody_can_change_is_given_as_it_is(value):
    kept = Kept(value, KEEP, now_us=0)
    assert is_immutable(value)
    assert kept.give() is value


@pytest.mark.parametrize("value", MUTABLE, ids=repr)
def test_of_what_can_be_changed_each_caller_gets_one_of_his_own(value):
    kept = Kept(value, KEEP, now_us=0)
    assert not is_immutable(value)
    first, second = kept.give(), kept.give()
    assert first == second == value
    assert type(first) is type(value)
    assert first is not second is not value


@pytest.mark.parametrize("value", MUTABLE, ids=repr)
def test_without_copies_every_caller_gets_the_same(value):
    kept = Kept(value, Terms(ttl_us=None, copy=False), now_us=0)
    assert kept.give() is value


@pytest.mark.parametrize(
    ("took_s", "from_s"),
    [
        pytest.param(0, 60, id="what took no time is not made early"),
        pytest.param(1, 53, id="seven times what it took"),
        pytest.param(100, 30, id="but not in the first half of its life"),
    ],
)
def test_a_value_has_an_early_window(took_s, from_s):
    kept = Kept(1, Terms(ttl_us=60 * US, took_us=took_s * US, early=1.0), now_us=0)
    assert kept.early_from_us == from_s * US


def test_what_cannot_be_pickled_is_copied_deeply_or_else_shared():
    @dataclass
    class Local:
        inside: list

    value = Local([1])
    kept = Kept(value, KEEP, now_us=0)
    value.inside.append(2)
    assert kept.give() == Local([1])
    lock = threading.Lock()
    assert Kept(lock, KEEP, now_us=0).give() is lock


class Bad:
    """Can be pickled, and not be read back."""

    def __reduce__(self):
        return int, ("x",)

    def __deepcopy__(self, memo):
        return Bad()


def test_a_pickle_that_cannot_be_read_back_is_not_relied_on():
    assert type(Kept(Bad(), KEEP, now_us=0).give()) is Bad


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        pytest.param("x" * 10_000, 10_000, 10_100, id="a text"),
        pytest.param([["x" * 1000]] * 50, 1000, 2000, id="what is shared counts once"),
        pytest.param([str(n) * 100 for n in range(1000)], 250_000, 400_000, id="a long list"),
        pytest.param(dict.fromkeys(range(5000), "x" * 100), 500_000, 2_000_000, id="a long dict"),
        pytest.param(Row({"a": "x" * 5000}), 5000, 6000, id="an object"),
        pytest.param(type("S", (), {"__slots__": ("a",)})(), 1, 200, id="an empty slot"),
    ],
)
def test_a_size_is_about_what_it_takes(value, least, most):
    assert least <= size_bytes(value) <= most


def test_a_cycle_has_a_size():
    value = []
    value.append(value)
    assert size_bytes(value) < 200


def test_the_size_counts_key_and_entry():
    memory = store()
    memory.keep("key", "x" * 1000, KEEP)
    assert memory.size_bytes == size_bytes("x" * 1000) + len("key") + ENTRY_BYTES
    memory.forget(["key"])
    assert memory.size_bytes == 0


def test_the_room_is_bounded_in_bytes_and_in_values():
    memory = store(bytes_max=100_000)
    for number in range(500):
        memory.keep(f"{number}", "x" * 5000, Terms(ttl_us=None, tags=(f"t{number}",)))
        assert memory.size_bytes <= 100_000
    assert 5 < len(memory) < 20
    assert memory.evictions > 400
    assert len(memory._by_tag) == len(memory)
    few = store(entries_max=10)
    for number in range(500):
        few.keep(f"{number}", 1, KEEP)
    assert len(few) == 10
    assert len(few._expiry) == 10


def test_what_is_larger_than_the_room_is_not_kept_nor_what_was_there():
    memory = store(bytes_max=10_000)
    assert memory.keep("k", 1, Terms(ttl_us=None, tags=("old",))) is not None
    assert memory.keep("k", "x" * 20_000, Terms(ttl_us=None, tags=("new",))) is None
    assert memory.look("k") is None
    assert (len(memory), memory.size_bytes, memory._by_tag) == (0, 0, {})


def test_what_is_asked_for_stays():
    memory = store(entries_max=100)
    memory.keep("asked", 1, KEEP)
    for number in range(2000):
        memory.find("asked")
        memory.keep(f"{number}", 1, KEEP)
    assert memory.look("asked") is not None


def test_what_has_expired_leaves_by_itself():
    now = [0]
    memory = store(clock=lambda: now[0])
    for number in range(20):
        memory.keep(f"{number}", 1, Terms(ttl_us=US, tags=("t",)))
    now[0] = 10 * US
    memory.expire()
    assert (len(memory), memory.size_bytes, memory._by_tag) == (0, 0, {})


def test_a_smaller_room_lets_go_of_what_does_not_fit():
    memory = store()
    look = memory.look
    for number in range(100):
        memory.keep(f"{number}", "x", Terms(ttl_us=US, tags=("t",)))
    memory.resize(bytes_max=1 << 20, entries_max=10)
    assert len(memory) == 10 == len(memory.tagged(["t"])) == len(memory._expiry)
    kept = memory.keys()[0]
    assert look(kept) is not None


class Leaving:
    """Calls the store when it goes."""

    def __init__(self, memory):
        self.memory = memory

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        raise TypeError

    def __del__(self):
        self.memory.keep("from del", 1, KEEP)
        self.memory.forget(["other"])


def test_it_shrinks_by_a_share_of_what_it_holds_and_what_is_asked_for_stays():
    memory = store(bytes_max=64 << 20, entries_max=10_000)
    for number in range(2_000):
        memory.keep(str(number), "x" * 100, Terms(ttl_us=60 * US, tags=("t",)))
    for _ in range(1_000):
        memory.find("7")
    before_bytes = memory.size_bytes
    freed_bytes = memory.shrink(0.75)
    assert freed_bytes >= 0.75 * before_bytes
    assert memory.size_bytes == before_bytes - freed_bytes
    assert "7" in memory.keys()  # noqa: SIM118 - it is no dict
    assert set(memory.tagged(["t"])) == set(memory.keys())
    assert len(memory._expiry) == len(memory)


def test_what_it_let_go_of_is_not_taken_again_before_it_may():
    memory = store()
    for number in range(800):
        memory.keep(str(number), "x" * 100, KEEP)
    memory.shrink(0.5)
    left_bytes = memory.size_bytes
    for number in range(1_000):
        memory.keep(f"new {number}", "x" * 100, KEEP)
    assert memory.size_bytes <= left_bytes == memory.room_bytes
    assert memory.bytes_max == 1 << 20
    memory.grow_back()
    for number in range(1_000):
        memory.keep(f"newer {number}", "x" * 100, KEEP)
    assert memory.size_bytes > left_bytes


def test_a_value_that_leaves_by_shrinking_may_call_the_store_from_another_thread():
    """What leaves is let go of outside of the lock."""
    memory = store()
    seen = []

    class Calling:
        def __del__(self):
            asking = threading.Thread(target=lambda: seen.append(memory.keys()))
            asking.start()
            asking.join(5)

    memory.keep("a", Calling(), Terms(ttl_us=None, copy=False))
    memory.shrink(1)
    assert seen == [[]]


def test_what_leaves_may_call_the_store():
    memory = store(entries_max=3)
    for number in range(20):
        memory.keep(f"{number}", Leaving(memory), KEEP)
    memory.forget(memory.keys())
    gc.collect()
    assert len(memory) <= 3


def test_nothing_is_held_of_what_was_let_go():
    class Held:
        def __deepcopy__(self, memo):
            return self

    memory = store(entries_max=5)
    values = [Held() for _ in range(50)]
    refs = [ref(value) for value in values]
    for number, value in enumerate(values):
        memory.keep(f"{number}", value, KEEP)
        memory.find(f"{number}")
    memory.forget(memory.keys())
    memory.keep("last", 1, KEEP)
    values.clear()
    del value
    gc.collect()
    assert [one for one in refs if one() is not None] == []


def test_threads_may_use_it_at_once():
    memory = store(bytes_max=200_000, entries_max=50)
    failed = []

    def work(seed):
        try:
            for number in range(3000):
                key = f"{(number * seed) % 90}"
                memory.find(key)
                memory.keep(key, [number], Terms(ttl_us=US, tags=(f"t{number % 5}",)))
                if number % 50 == 0:
                    memory.forget(memory.tagged([f"t{seed % 5}"]))
                memory.add("sum", 1, None)
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 3, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(memory) <= 50
    linked = {key for keys in memory._by_tag.values() for key in keys}
    assert linked <= set(memory.keys())
    assert set(memory._order.keys()) == set(memory.keys())


def matches_naively(pattern, key):
    if not pattern:
        return not key
    if pattern[0] == "*":
        return any(matches_naively(pattern[1:], key[at:]) for at in range(len(key) + 1))
    return bool(key) and key[0] == pattern[0] and matches_naively(pattern[1:], key[1:])


@given(st.text("ab*", max_size=6), st.text("ab*", max_size=8))
def test_a_pattern_matches_as_defined(pattern, key):
    assert matcher(pattern)(key) is matches_naively(pattern, key)
