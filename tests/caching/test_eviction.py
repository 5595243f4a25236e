"""The bounded map keeps its bounds and its accounting, and what is asked for again."""

import gc
import weakref
from collections import Counter
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.eviction import LruCache, simulate
from benchmarks.traces import suite
from perf_middleware.caching.eviction import READS_MAX, ROOM_PART_MIN, BoundedCache
from perf_middleware.caching.miniatures import MINIATURE_LENGTH, PERIOD
from perf_middleware.caching.two_queues import GHOSTS_MIN, SPARED_MAX, TwoQueues

ROOMY = 1 << 40


def cache_of(entries_max=1000, bytes_max=ROOMY, on_evict=None):
    return BoundedCache(bytes_max=bytes_max, entries_max=entries_max, on_evict=on_evict)


def ask(cache, *keys, size_bytes=1):
    """Look aside: get, and put what is not there."""
    for key in keys:
        if cache.get(key) is None:
            cache.put(key, key, size_bytes)


class Value:
    """Something that can be watched leaving memory."""


# --- a map ----------------------------------------------------------------------------------------

KEYS = st.integers(0, 15)
HELD_KEYS = st.integers(100, 103)
SIZES = st.one_of(st.integers(0, 12), st.integers(0, 120))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, SIZES),
        st.tuples(st.just("put"), KEYS, SIZES),
        st.tuples(st.just("ask"), KEYS, SIZES),
        st.tuples(st.just("get"), KEYS, st.none()),
        st.tuples(st.just("pop"), KEYS, st.none()),
        st.tuples(st.just("clear"), st.none(), st.none()),
        st.tuples(st.just("hold"), HELD_KEYS, SIZES),
        st.tuples(st.just("get"), HELD_KEYS, st.none()),
        st.tuples(st.just("pop"), HELD_KEYS, st.none()),
        st.tuples(st.just("shrink"), SIZES, st.integers(1, 4)),
        st.tuples(st.just("grow_back"), st.none(), st.none()),
    ),
    max_size=80,
)


class CheckedCache:
    """A cache beside the naive model of it: a dict of what must be there, told what was lost."""

    def __init__(self, *, bytes_max, entries_max):
        self.cache = cache_of(entries_max, bytes_max, self._lose)
        self.model = {}  # key -> (value, size)
        self.lost = []
        self.puts = 0
        self.overwritten = None

    def _lose(self, key, value):
        self.lost.append(value)
        assert key not in self.cache
        # Once only, and the last one put; where that did not come in, the one before.
        assert value in (self.model.pop(key)[0], self.overwritten)

    def put(self, key, size, *, held=False):
        self.puts += 1
        value = f"{key} for the {self.puts}th time"
        self.overwritten = overwritten = self.model.get(key, (None,))[0]
        if size <= self.cache.room_bytes:
            self.model[key] = (value, size)
        if not self.cache.put(key, value, size, held=held):
            assert key not in self.cache
            assert overwritten is None or overwritten in self.lost
            self.model.pop(key, None)
        else:
            assert self.cache.peek(key) == value

    def hold(self, key, size):
        others = {other for other in self.model if other >= 100 and other != key}
        self.put(key, size, held=True)
        assert others <= self.model.keys()

    def ask(self, key, size):
        if self.cache.get(key) is None:
            self.put(key, size)

    def get(self, key, _):
        assert self.cache.get(key) == self.model.get(key, (None,))[0]

    def pop(self, key, _):
        assert self.cache.pop(key) == self.model.pop(key, (None,))[0]

    def clear(self, _, __):
        cleared = self.cache.clear()
        assert not len(self.cache)
        assert Counter(cleared) == Counter(value for value, _ in self.model.values())
        self.model.clear()

    def shrink(self, bytes_kept, entries):
        cache = self.cache
        lost, held = len(self.lost), {key for key in self.model if key >= 100}
        is_done = cache.shrink(bytes_kept, entries=entries)
        assert len(self.lost) - lost <= entries
        assert held <= self.model.keys()
        assert is_done == (cache.size_bytes <= bytes_kept or held == self.model.keys())
        # The room is what is left, so that nothing comes back; a little is never taken.
        assert cache.size_bytes <= cache.room_bytes
        assert cache.room_bytes <= max(cache.size_bytes, cache.bytes_max // ROOM_PART_MIN, 1)

    def grow_back(self, _, __):
        self.cache.grow_back()
        assert self.cache.room_bytes == self.cache.bytes_max

    def check(self):
        cache = self.cache
        keys = cache.keys()
        assert {key: cache.peek(key) for key in keys} == {
            key: value for key, (value, _) in self.model.items()
        }
        assert cache.size_bytes == sum(size for _, size in self.model.values())
        assert cache.size_bytes <= cache.room_bytes <= cache.bytes_max
        assert len(cache) == len(self.model)
        assert sum(key < 100 for key in self.model) <= cache.entries_max
        assert len(self.lost) == len(set(self.lost))
        assert len(cache._queues.ghosts) <= max(GHOSTS_MIN, cache.entries_max)


@settings(max_examples=200, deadline=None)
@given(steps=STEPS, bytes_max=st.integers(1, 100), entries_max=st.integers(1, 12))
@example(steps=[("put", 1, 5), ("put", 1, 101)], bytes_max=100, entries_max=2)
@example(steps=[("put", 1, 50), ("put", 2, 50), ("put", 1, 100)], bytes_max=100, entries_max=2)
def test_it_holds_what_was_put_last_within_its_bounds_and_tells_what_it_lost(
    steps, bytes_max, entries_max
):
    checked = CheckedCache(bytes_max=bytes_max, entries_max=entries_max)
    for step, first, second in steps:
        getattr(checked, step)(first, second)
        checked.check()


@pytest.mark.parametrize("seed", range(4))
def test_it_does_so_over_many_requests_and_both_windows(seed):
    random = Random(seed)
    checked = CheckedCache(bytes_max=20_000, entries_max=200)
    windows = set()
    for at in range(4000):
        # keys asked for twice for a while, which calls for the other window, then popular ones
        key = at // 120 * 120 + at % 60 if at < 2000 else int(random.paretovariate(0.5))
        checked.ask(key, random.randrange(1, 400))
        if random.random() < 0.1:
            key = random.choice(checked.cache.keys())
            random.choice((checked.put, checked.pop))(key, random.randrange(1, 4000))
        windows.add(checked.cache._queues.window_percent)
        if at % 50 == 0:
            checked.check()
    checked.check()
    assert windows == {1, 100}
    assert checked.lost


def test_peeking_does_not_keep_an_entry():
    kept, peeked = cache_of(entries_max=10), cache_of(entries_max=10)
    for cache, look in ((kept, kept.get), (peeked, peeked.peek)):
        for key in range(200):
            cache.put(key, key, 1)
            look(0)

    assert 0 in kept
    assert 0 not in peeked


def test_an_entry_that_is_overwritten_keeps_its_standing():
    cache = cache_of(entries_max=10)
    for _ in range(3):
        ask(cache, *range(5))
    for key in range(5):
        assert cache.put(key, "new", 2)
    for key in range(100, 120):
        cache.put(key, key, 1)

    assert [cache.peek(key) for key in range(5)] == ["new"] * 5


def test_an_entry_that_grows_drives_out_others_and_not_itself():
    lost = []
    cache = cache_of(bytes_max=100, on_evict=lambda key, _: lost.append(key))
    for key in range(10):
        cache.put(key, key, 10)

    assert cache.put(0, "grown", 60)
    assert cache.peek(0) == "grown"
    assert cache.size_bytes == 100
    assert sorted(lost) == sorted(set(range(10)) - set(cache.keys()))
    assert len(lost) == 5


def test_what_is_larger_than_the_room_is_not_let_in_and_leaves_nothing_outdated():
    lost = []
    cache = cache_of(bytes_max=100, on_evict=lambda *entry: lost.append(entry))
    cache.put("a", 1, 100)

    assert not cache.put("a", 2, 101)
    assert "a" not in cache
    assert lost == [("a", 1)]
    assert (cache.size_bytes, cache.evictions) == (0, 0)


def test_one_large_entry_must_be_asked_for_twice_before_it_drives_out_small_ones():
    cache = cache_of(bytes_max=1000)
    for key in range(1000):
        cache.put(key, key, 1)

    assert not cache.put("large", 1, 800)
    assert len(cache) == 1000
    assert cache.put("large", 1, 800)
    assert "large" in cache


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        pytest.param({"bytes_max": 0, "entries_max": 1}, "bytes_max", id="no bytes"),
        pytest.param({"bytes_max": 1, "entries_max": 0}, "entries_max", id="no entries"),
    ],
)
def test_a_cache_without_room_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        BoundedCache(**wrong)


def test_a_negative_size_is_refused_and_changes_nothing():
    cache = cache_of()
    cache.put("a", 1, 10)
    with pytest.raises(ValueError, match="negative"):
        cache.put("a", 2, -1)

    assert (cache.peek("a"), cache.size_bytes) == (1, 10)


# --- what is held ---------------------------------------------------------------------------------


def test_what_is_held_never_leaves_and_takes_no_place():
    cache = cache_of(entries_max=2, bytes_max=1000)
    cache.put("held", 1, 100, held=True)
    for key in range(100):
        assert cache.put(key, key, 10)
        assert cache.put(key, key, 20)  # replaced
    assert cache.peek("held") == 1
    assert sorted(cache.keys(), key=str) == [98, 99, "held"]
    assert cache.pop("held") == 1
    assert cache.size_bytes == 40


def test_what_is_held_drives_others_out_by_its_bytes():
    told = []
    cache = cache_of(bytes_max=100, on_evict=lambda key, _: told.append(key))
    for key in range(10):
        cache.put(key, key, 10)
    assert cache.put("held", 1, 35, held=True)
    assert len(told) == cache.evictions == 4
    assert cache.put("held", 2, 55, held=True)
    assert len(told) == 6
    assert cache.size_bytes == 95


@pytest.mark.parametrize(
    ("key", "size_bytes", "held"),
    [
        pytest.param("new", 50, False, id="a new one"),
        pytest.param("new", 50, True, id="one to be held"),
        pytest.param("old", 50, False, id="one that grew"),
        pytest.param("held", 101, True, id="what is held and grew beyond all room"),
        pytest.param("also held", 50, True, id="what is held and grew beyond what others leave"),
    ],
)
def test_what_has_no_room_beside_what_is_held_does_not_come_in(key, size_bytes, held):
    told = []
    cache = cache_of(bytes_max=100, on_evict=lambda key, value: told.append((key, value)))
    cache.put("held", "held", 60, held=True)
    cache.put("also held", "also held", 1, held=True)
    ask(cache, "old", size_bytes=5)
    ask(cache, "new", size_bytes=50)  # refused for its size, and known from now on
    told.clear()
    before = cache.peek(key)
    assert not cache.put(key, "later", size_bytes, held=held)
    assert key not in cache
    assert ((key, before) in told) == (before is not None)
    assert len(told) == len(set(told))
    assert cache.size_bytes <= 100


def test_what_goes_with_the_last_that_it_leads_to_makes_room_too():
    cache = cache_of(bytes_max=100, on_evict=lambda key, _: cache.pop(("leads to", key)))
    for key in range(4):
        assert cache.put(key, key, 10)
        assert cache.put(("leads to", key), key, 15, held=True)
    cache.put("large", 1, 90)
    assert cache.put("large", 1, 90)
    assert cache.keys() == ["large"]


def test_a_listener_that_fails_leaves_no_more_than_the_room():
    def fail(key, _):
        raise LookupError(key)

    cache = cache_of(bytes_max=100, on_evict=fail)
    cache.put("held", 1, 60, held=True)
    cache.put("a", 1, 5)
    cache.put("large", 1, 50)
    with pytest.raises(LookupError):
        cache.put("large", 1, 50)
    assert cache.keys() == ["held"]
    assert cache.size_bytes == 60


@pytest.mark.parametrize("held", [False, True])
def test_a_key_is_held_or_not_for_as_long_as_it_is_there(held):
    cache = cache_of()
    cache.put("a", 1, 10, held=held)
    with pytest.raises(ValueError, match="'a' is there, and"):
        cache.put("a", 2, 10, held=not held)
    assert cache.peek("a") == 1
    cache.pop("a")
    assert cache.put("a", 2, 10, held=not held)


def test_what_is_held_does_not_sway_the_choice_of_a_window():
    cache = cache_of(entries_max=100)
    for key in range(1000):
        cache.put(("leads to", key), key, 1, held=True)
        for _ in range(5):
            cache.get(("leads to", key))
    cache.put("a", 1, 1)
    assert list(cache._miniatures.small.entries) == [hash(("a",))]
    assert list(cache.clear()).count(1) == 2
    assert (len(cache), cache.size_bytes) == (0, 0)


# --- telling what was lost ------------------------------------------------------------------------


def test_shrinking_lets_go_of_what_is_least_asked_for():
    cache = cache_of(bytes_max=1000)
    ask(cache, *range(100), size_bytes=10)
    favourites = range(0, 100, 10)
    for _ in range(2):
        ask(cache, *favourites, size_bytes=10)
    while not cache.shrink(300, entries=7):
        pass
    assert cache.size_bytes == 300
    assert set(favourites) <= set(cache.keys())


def test_what_was_shrunk_keeps_its_size_until_it_may_grow_back():
    cache = cache_of(bytes_max=1000)
    ask(cache, *range(100), size_bytes=10)
    assert cache.shrink(500, entries=100)
    ask(cache, *range(200, 300), size_bytes=10)
    assert cache.size_bytes == 500
    assert 299 in cache  # it goes on taking in what is asked for, in place of others
    cache.grow_back()
    ask(cache, *range(300, 400), size_bytes=10)
    assert cache.size_bytes == 1000


def test_however_much_it_shrinks_a_little_room_is_left():
    cache = cache_of(bytes_max=64_000)
    ask(cache, *range(100), size_bytes=100)
    assert cache.shrink(0, entries=100)
    assert (len(cache), cache.room_bytes) == (0, 1000)
    ask(cache, *range(100), size_bytes=100)
    assert cache.size_bytes == 1000


def test_a_listener_that_fails_while_it_shrinks_is_heard_and_the_room_is_smaller():
    def fail(key, value):
        raise ValueError(key)

    cache = cache_of(bytes_max=1000, on_evict=fail)
    ask(cache, *range(100), size_bytes=10)
    with pytest.raises(ValueError, match="0"):
        cache.shrink(500, entries=100)
    assert cache.size_bytes == cache.room_bytes == 500


def test_the_listener_may_take_others_out_and_put_new_ones_in():
    def lose_siblings(key, _):
        told.append(key)
        siblings = range(key // 10 * 10, key // 10 * 10 + 10)
        popped.extend(sibling for sibling in siblings if cache.pop(sibling) is not None)
        if key < 500:
            cache.put(key + 10_000, key, 7)

    told, popped = [], []
    cache = cache_of(bytes_max=1000, on_evict=lose_siblings)
    for key in range(500):
        cache.put(key, key, 20)

    held = cache.keys()
    assert cache.size_bytes == sum(7 if key >= 10_000 else 20 for key in held) <= 1000
    assert len(told) == len(set(told)) == cache.evictions
    put = {*range(500), *(key + 10_000 for key in told if key < 500)}
    assert sorted([*told, *popped, *held]) == sorted(put)


def test_a_listener_that_fails_is_heard_after_all_were_told_and_harms_nothing():
    told = []

    def fail(key, _):
        told.append(key)
        raise LookupError(key)

    cache = cache_of(bytes_max=100, on_evict=fail)
    for key in range(10):
        cache.put(key, key, 10)
    ask(cache, "large", size_bytes=50)  # is not let in at first
    with pytest.raises(LookupError) as raised:
        cache.put("large", "large", 50)

    assert raised.value.args == (told[0],)
    assert len(told) == 5
    assert cache.peek("large") == "large"
    assert cache.size_bytes == 100
    assert set(told).isdisjoint(cache.keys())


# --- memory and work ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(lambda cache: cache.pop("a"), id="popped"),
        pytest.param(lambda cache: list(cache.clear()), id="cleared"),
        pytest.param(lambda cache: cache.put("a", 1, 1), id="overwritten"),
        pytest.param(lambda cache: cache.put("a", 1, ROOMY + 1), id="replaced by too much"),
    ],
)
def test_a_value_that_left_is_gone_from_memory_at_once(leave):
    cache = cache_of()
    value = Value()
    watch = weakref.ref(value)
    for key in ("before", "a", "after"):
        cache.put(key, value if key == "a" else key, 1)
        cache.get(key)
    del value
    gc.disable()
    try:
        leave(cache)
        assert watch() is None
    finally:
        gc.enable()


def test_ghosts_are_as_many_as_entries_at_most_and_hold_no_keys():
    cache = cache_of(entries_max=100)
    for key in range(5000):
        cache.put(f"key {key}", key, 1)

    ghosts = cache._queues.ghosts
    assert len(ghosts) == 100
    assert all(type(ghost) is int for ghost in ghosts)


def test_putting_and_popping_over_and_over_keeps_nothing():
    cache = cache_of(entries_max=100)
    for key in range(5000):
        cache.put(key, key, 1)
        cache.get(key)
        cache.pop(key)

    assert (len(cache), cache.size_bytes) == (0, 0)
    assert len(cache._queues.ghosts) <= GHOSTS_MIN
    assert len(cache._reads) == 0


def test_the_miniatures_are_small_beside_a_large_cache():
    cache = cache_of(entries_max=20_000)
    for key in range(60_000):
        cache.put(key, key, 1)

    small, whole = cache._miniatures.small, cache._miniatures.whole
    for hashes in (small.entries, small.ghosts, whole.sizes):
        assert len(hashes) <= 2 * MINIATURE_LENGTH + PERIOD


def test_to_insert_among_favourites_does_not_walk_through_them():
    queues = TwoQueues(bytes_max=ROOMY, entries_max=1000, window_percent=1)

    def insert(keys):
        for key in keys:
            before = queues.spared
            queues.insert(key, key, None, 1)
            yield queues.spared - before

    def read_all(times):
        for entry in [*queues.entries.values()] * times:
            queues.read(entry)

    list(insert(range(1000)))
    read_all(times=1)
    assert max(insert(range(10_000, 11_000))) == SPARED_MAX  # the window is full of favourites
    read_all(times=3)
    assert max(insert(range(10_500, 10_700))) == SPARED_MAX  # known, so main has to let one go
    assert len(queues.entries) == 1000


def test_hits_without_end_cost_the_next_put_no_more_than_a_few():
    cache = cache_of()
    cache.put("a", 1, 1)
    for _ in range(10_000):
        cache.get("a")

    assert len(cache._reads) == READS_MAX


# --- who stays ------------------------------------------------------------------------------------


def test_favourites_survive_a_scan_of_any_length():
    cache = cache_of(entries_max=100)
    for _ in range(5):
        ask(cache, *range(50))
    ask(cache, *range(1000, 6000))

    assert sum(key in cache for key in range(50)) >= 48


def test_new_favourites_take_the_place_of_the_old_ones():
    cache = cache_of(entries_max=100)
    for _ in range(50):
        ask(cache, *range(90))
    for _ in range(20):
        ask(cache, *range(1000, 1090))

    assert sum(key in cache for key in range(1000, 1090)) >= 85


def test_what_was_asked_for_is_known_when_it_is_put_again_after_it_expired():
    cache = cache_of(entries_max=100)
    for _ in range(5):
        ask(cache, *range(50))
    ask(cache, *range(1000, 1100))
    held = cache.keys()
    for key in held:
        cache.pop(key)
    assert len(cache) == 0
    ask(cache, *range(50))
    ask(cache, *range(2000, 3000))

    assert sum(key in cache for key in range(50)) >= 48


AHEAD_MIN = {  # of LRU's hit ratio; measured: 0.01 to 0.02 more
    "Zipf 0.9, room for 1 %": 0.11,
    "Zipf 1.0, room for 1 %": 0.12,
    "Zipf 0.9, room for 10 %": 0.07,
    "Zipf 1.0, room for 10 %": 0.06,
    "Zipf 0.9, 10 of 100 keys": 0.10,
    "Zipf 1.0 and scans of twice the room, 1 %": 0.10,
    "Zipf 1.0 and scans of twice the room, 10 %": 0.06,
    "loop over 110 % of the room": 0.50,
    "Zipf 0.9, 100 B to 1 MiB, 1 % of the bytes": 0.10,
    "Zipf 0.9, some of 80 % of the room asked for rarely": 0.10,
}


def test_it_is_far_ahead_of_lru_on_skewed_traces_and_on_none_a_point_behind():
    ahead = {}
    for trace in suite(keys=2_000, requests=20_000):
        room = {"bytes_max": trace.bytes_max, "entries_max": trace.entries_max}
        ours = simulate(trace, BoundedCache(**room))
        lru = simulate(trace, LruCache(**room))
        ahead[trace.name] = ours.hits - lru.hits
        assert ours.bytes - lru.bytes > -0.01, trace.name

    assert {name: lead for name, lead in ahead.items() if lead < -0.01} == {}
    short = {name: ahead[name] for name, least in AHEAD_MIN.items() if ahead[name] < least}
    assert short == {}
