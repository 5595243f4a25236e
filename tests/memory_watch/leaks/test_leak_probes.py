"""Caches that know their bound are found among Python's objects, and measured."""

import gc
import sys
from collections import OrderedDict, deque
from functools import lru_cache

import pytest

from perf_middleware.memory_watch.leaks import probes
from perf_middleware.memory_watch.leaks.probes import Census, InUse, collect, malloc_reader
from perf_middleware.memory_watch.probes.allocator import Allocator


@pytest.fixture(autouse=True)
def a_process_of_any_size(monkeypatch):
    """What other tests of this run have left in memory is looked through as well."""
    monkeypatch.setattr(probes, "BLOCKS_MAX", sys.maxsize)
    monkeypatch.setattr(probes, "CACHES_MAX", sys.maxsize)


@lru_cache(maxsize=1_000)
def priced(number):
    return b"x" * 1_000 + str(number).encode()


class Sessions:
    """A cache of somebody's own, as many write one."""

    def __init__(self):
        self.max_entries = 500
        self._kept = OrderedDict()

    def put(self, key):
        self._kept[key] = [str(key)] * 10
        if len(self._kept) > self.max_entries:
            self._kept.popitem(last=False)

    def __len__(self):
        raise AssertionError("no code of the app is called")


class Bounded(dict):
    """A container that is its own cache."""

    def __init__(self):
        self.maxsize = 100

    def __len__(self):
        raise AssertionError("no code of the app is called")


class Private:
    """A bound and a dictionary under private names, as cachetools keeps them, in a base class."""

    def __init__(self, maxsize):
        self.__maxsize = maxsize
        self.__data = {}

    def __setitem__(self, key, value):
        self.__data[key] = value


class Derived(Private):
    """What the app makes of it."""


class Holder:
    """Something large that knows no bound."""

    def __init__(self):
        self.seen = {}


def named(census):
    return {cache.name: cache for cache in census.filling()}


@pytest.fixture(autouse=True)
def empty():
    priced.cache_clear()
    yield
    priced.cache_clear()


def test_a_cache_of_functools_is_found_while_it_fills():
    priced(0)
    census = Census()
    for number in range(1, 301):
        priced(number)
    cache = named(census)[f"{__name__}.priced"]
    assert (cache.entries, cache.entries_max) == (301, 1_000)
    assert 1_000 <= cache.bytes_per_s / cache.entries_per_s <= 1_500


def test_the_largest_is_found_among_more_than_are_looked_at(monkeypatch):
    """A fixed bug: any thousand of them were looked at, were they short queues without an entry."""
    # Those that other tests of this run have left may be larger.
    monkeypatch.setattr(probes, "CACHES_MAX", 1_000 + len(Census()._caches))
    crowd = [deque(maxlen=3) for _ in range(probes.CACHES_MAX)]
    priced(0)
    census = Census()
    assert len(census._caches) == probes.CACHES_MAX < len(crowd) + 1
    priced(1)
    assert f"{__name__}.priced" in named(census)


def test_a_full_one_is_no_reason():
    for number in range(1_000):
        priced(number)
    census = Census()
    for number in range(1_000, 2_000):
        priced(number)
    assert f"{__name__}.priced" not in named(census)


def test_one_that_stands_still_is_no_reason():
    priced(1)
    assert f"{__name__}.priced" not in named(Census())


def test_a_frozen_one_is_found_too():
    gc.freeze()  # as everything is that was collected with this test
    census = Census()
    for number in range(50):
        priced(number)
    assert f"{__name__}.priced" in named(census)


def test_caches_of_ones_own_are_known_by_their_bound():
    sessions, bounded, lines, holder = Sessions(), Bounded(), deque(maxlen=300), Holder()
    derived = Derived(700)
    census = Census()
    for number in range(60):
        sessions.put(number)
        bounded[number] = derived[number] = str(number)
        lines.append(str(number))
        holder.seen[number] = number
    found = named(census)
    kinds = {name.rpartition(".")[2]: cache.entries_max for name, cache in found.items()}
    assert kinds["Sessions"] == 500
    assert kinds["Bounded"] == 100
    assert kinds["Derived"] == 700
    assert kinds["deque"] == 300
    assert "Holder" not in kinds
    assert all(cache.bytes_per_s > 0 for cache in found.values())


def test_looking_makes_no_objects():
    """An instance without a dictionary of its own would get one by being looked into."""
    kept = [Holder() for _ in range(300)]
    gc.collect()
    before = Census()
    more = {kind.name: kind.more for kind in Census().more_than(before)}
    assert more == {}
    assert len(kept) == 300


def test_a_huge_one_is_not_measured(monkeypatch):
    monkeypatch.setattr(probes, "ENTRIES_MEASURED_MAX", 10)
    census = Census()
    for number in range(60):
        priced(number)
    assert named(census)[f"{__name__}.priced"].bytes_per_s is None


def test_types_with_more_objects_are_named():
    before = Census()
    kept = [Holder() for _ in range(700)]
    more = {kind.name.rpartition(".")[2]: kind.more for kind in Census().more_than(before)}
    assert more["Holder"] == 700
    assert len(kept) == 700


class Proxy:
    """As frameworks have them: whoever asks what it is makes what it stands for."""

    asked = 0

    @property
    def __class__(self):
        Proxy.asked += 1
        return dict


LAZY = Proxy()


def test_no_proxy_is_asked_what_it_is():
    asked = Proxy.asked  # pytest did
    for number in range(10):
        priced(number)
    census = Census()
    for number in range(10, 200):
        priced(number)
    assert f"{__name__}.priced" in {filling.name for filling in census.filling()}
    assert Proxy.asked == asked


def test_a_huge_process_is_not_looked_through(monkeypatch):
    before = Census()
    monkeypatch.setattr(probes, "BLOCKS_MAX", 10)
    census = Census()
    assert census.filling() == []
    assert census.more_than(before) == ()
    assert before.more_than(census) == ()


def test_a_collection_tells_what_is_left():
    gc.collect()
    gc.disable()
    try:
        for _ in range(1_000):
            cycle = [bytes(2_000)]
            cycle.append(cycle)
        del cycle
        blocks, given_out = InUse()()
        blocks_left, left = collect()
    finally:
        gc.enable()
    assert blocks - blocks_left >= 1_900
    if given_out is not None and left is not None:
        assert given_out - left >= 1_900_000


def test_malloc_tells_what_it_has_given_out():
    read = malloc_reader()
    if read is None:
        pytest.skip("no glibc of 2.33 or later")
    before = read()
    kept = bytearray(3_000_000)
    assert read() - before >= len(kept)


def test_a_dear_reading_is_left_out(monkeypatch):
    if malloc_reader() is None:
        pytest.skip("no glibc of 2.33 or later")
    ticks = iter(range(0, 10**9, probes.COST_NS_MAX + 1))
    monkeypatch.setattr(probes, "perf_counter_ns", lambda: next(ticks))
    in_use = InUse()
    assert [in_use()[1] is None for _ in range(5)] == [False, False, False, True, True]
    assert in_use()[0] > 0


def test_readings_keep_to_a_share_of_the_time(monkeypatch):
    now_ns = [1_000_000_000]
    monkeypatch.setattr(probes, "perf_counter_ns", lambda: now_ns[0])
    monkeypatch.setattr(probes, "malloc_reader", lambda: None)
    monkeypatch.setattr(
        probes.sys, "getallocatedblocks", lambda: now_ns.__setitem__(0, now_ns[0] + 150_000)
    )
    in_use = InUse()
    assert in_use.is_affordable()
    in_use()
    now_ns[0] += 149_000_000
    assert not in_use.is_affordable()
    now_ns[0] += 1_000_000
    assert in_use.is_affordable()


def test_where_the_c_library_is_silent_only_blocks_are_told(monkeypatch):
    monkeypatch.setattr(probes, "load_allocator", Allocator)
    assert malloc_reader() is None
    blocks, malloc = InUse()()
    assert (blocks > 0, malloc) == (True, None)
    assert sys.getallocatedblocks() > 0
    assert collect()[1] is None
