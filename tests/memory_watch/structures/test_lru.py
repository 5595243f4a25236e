"""The LRU cache: what stays, what leaves, and what many threads at once make of it."""

import gc
from collections import OrderedDict
from threading import Event, Thread
from time import monotonic

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from perf_middleware.memory_watch.structures.stores.lru import LRUCache
from tests.memory_watch.structures.threads import together

US_PER_S = 1_000_000


class Clock:
    now_us = 5 * US_PER_S

    def __call__(self):
        return self.now_us


def test_what_was_used_last_stays():
    cache = LRUCache(2)
    cache["a"], cache["b"] = 1, 2
    assert cache["a"] == 1
    cache["c"] = 3
    assert cache.keys() == ["a", "c"]
    assert "b" not in cache
    with pytest.raises(KeyError):
        cache["b"]


def test_looking_without_using_keeps_the_order():
    cache = LRUCache(2)
    cache["a"], cache["b"] = 1, 2
    assert cache.peek("a") == 1
    assert "a" in cache
    assert cache.items() == [("a", 1), ("b", 2)]
    cache["c"] = 3
    assert list(cache) == ["b", "c"]


def test_none_is_a_value():
    cache = LRUCache(2)
    cache["a"] = None
    assert cache["a"] is None
    assert cache.get("a", 5) is None
    assert cache.get_or_make("a", lambda: 1 / 0) is None


def test_bytes_are_a_bound():
    told = []
    cache = LRUCache(
        100, bytes_max=10, size_of=len, on_evict=lambda key, value: told.append((key, value))
    )
    assert cache.put("a", b"1234")
    assert cache.put("b", b"1234")
    assert cache.put("c", b"1234")
    assert told == [("a", b"1234")]
    assert (cache.size_bytes, cache.evictions) == (8, 1)


def test_a_value_that_is_larger_than_the_room_is_not_kept_nor_an_older_one():
    cache = LRUCache(100, bytes_max=10, size_of=len)
    cache["a"] = b"12"
    assert cache.put("a", b"x" * 11) is False
    assert "a" not in cache
    assert cache.size_bytes == 0
    assert cache.get_or_make("b", lambda: b"x" * 11) == b"x" * 11
    assert len(cache) == 0


def test_an_entry_lives_for_its_time():
    clock, told = Clock(), []
    cache = LRUCache(9, ttl_s=2, clock=clock, on_evict=lambda key, value: told.append(key))
    cache["a"] = 1
    clock.now_us += 2 * US_PER_S - 1
    assert cache["a"] == 1
    clock.now_us += 1
    assert "a" not in cache
    assert cache.peek("a") is None
    assert cache.get("a") is None
    assert told == ["a"]
    assert len(cache) == 0
    assert cache.get_or_make("a", lambda: 2) == 2


def test_what_is_over_is_made_anew_and_told():
    clock, told = Clock(), []
    cache = LRUCache(9, ttl_s=2, clock=clock, on_evict=lambda key, value: told.append(value))
    assert cache.get_or_make("a", lambda: 1) == 1
    clock.now_us += 3 * US_PER_S
    assert cache.get_or_make("a", lambda: 2) == 2
    assert told == [1]


@pytest.mark.parametrize(
    ("share", "freed", "left"),
    [
        pytest.param(0, 0, ["a", "b", "c", "d"], id="nothing"),
        pytest.param(0.5, 20, ["c", "d"], id="half of the bytes, least recently used first"),
        pytest.param(0.3, 20, ["c", "d"], id="at least that much"),
        pytest.param(1, 40, [], id="all"),
    ],
)
def test_it_lets_go_of_a_share_of_its_bytes(share, freed, left):
    cache = LRUCache(9, size_of=len)
    for key in "abcd":
        cache[key] = b"0123456789"
    assert cache.shrink(share) == freed
    assert cache.keys() == left
    assert cache.evictions == 4 - len(left)


def test_without_sizes_it_lets_go_of_a_share_of_its_entries():
    cache = LRUCache(9)
    for key in "abcd":
        cache[key] = key
    assert cache.shrink(0.5) == 0
    assert cache.keys() == ["c", "d"]


def test_what_is_over_goes_first():
    clock = Clock()
    cache = LRUCache(9, size_of=len, ttl_s=2, clock=clock)
    cache["old"] = b"1234"
    clock.now_us += US_PER_S
    cache["young"] = b"1234"
    cache.get("old")
    clock.now_us += US_PER_S
    assert cache.shrink(0.1) == 4
    assert cache.keys() == ["young"]


def test_an_observer_that_fails_is_counted_and_logged_once(caplog):
    def fails(key, value):
        raise RuntimeError("no")

    cache = LRUCache(1, on_evict=fails)
    for key in range(4):
        cache[key] = key
    assert cache.observer_failures == 3
    assert len(caplog.records) == 1
    assert cache.keys() == [3]


def test_what_the_app_takes_out_is_not_told():
    told = []
    cache = LRUCache(9, on_evict=lambda key, value: told.append(key))
    for key in "abc":
        cache[key] = 1
    cache["a"] = 2
    del cache["a"]
    assert cache.pop("b") == 1
    assert cache.pop("b", 7) == 7
    cache.clear()
    with pytest.raises(KeyError):
        del cache["a"]
    assert (told, len(cache), cache.evictions) == ([], 0, 0)


def test_threads_that_ask_for_one_key_share_one_making():
    cache, makings, may_end = LRUCache(9), [], Event()

    def make():
        makings.append(1)
        may_end.wait(10)
        return object()

    Thread(target=lambda: (wait_for(lambda: cache.misses == 8), may_end.set()), daemon=True).start()
    values = together(8, lambda _: cache.get_or_make("a", make))
    assert len(makings) == 1
    assert len(set(map(id, values))) == 1


def wait_for(is_so):
    until_s = monotonic() + 120
    while not is_so():
        assert monotonic() < until_s


def test_a_failure_reaches_those_who_waited_and_is_not_kept():
    cache, makings, may_end = LRUCache(9), [], Event()

    def fail():
        makings.append(1)
        may_end.wait(10)
        raise LookupError("none")

    def ask(_):
        with pytest.raises(LookupError):
            cache.get_or_make("a", fail)

    Thread(target=lambda: (wait_for(lambda: cache.misses == 4), may_end.set()), daemon=True).start()
    together(4, ask)
    assert len(makings) == 1
    assert cache.get_or_make("a", lambda: 5) == 5


def test_where_the_leader_is_interrupted_another_leads():
    cache, may_end = LRUCache(9), Event()

    def interrupted():
        may_end.wait(10)
        raise KeyboardInterrupt

    def ask(number):
        if number:
            wait_for(lambda: cache.misses >= 1)
            return cache.get_or_make("a", lambda: "made")
        with pytest.raises(KeyboardInterrupt):
            cache.get_or_make("a", interrupted)
        return None

    Thread(target=lambda: (wait_for(lambda: cache.misses == 4), may_end.set()), daemon=True).start()
    assert together(4, ask) == [None, "made", "made", "made"]


@pytest.mark.parametrize(
    ("meanwhile", "left"),
    [
        pytest.param(lambda cache: cache.put("a", "newer"), "newer", id="put"),
        pytest.param(lambda cache: cache.pop("a"), None, id="popped"),
        pytest.param(lambda cache: cache.clear(), None, id="cleared"),
    ],
)
def test_what_happens_to_a_key_during_its_making_is_newer(meanwhile, left):
    cache = LRUCache(9)

    def make():
        meanwhile(cache)
        return "older"

    assert cache.get_or_make("a", make) == "older"
    assert cache.get("a") == left


def test_a_making_that_asks_for_its_own_key_is_an_error_and_no_deadlock():
    cache = LRUCache(9)
    with pytest.raises(RuntimeError, match="waits for itself"):
        cache.get_or_make("a", lambda: cache.get_or_make("a", lambda: 1))
    assert cache.get_or_make("a", lambda: cache.get_or_make("b", lambda: 1)) == 1


def test_two_threads_that_need_each_others_keys_do_not_wait_for_ever():
    cache, first, second = LRUCache(9), Event(), Event()

    def make_a():
        first.set()
        assert second.wait(10)
        return cache.get_or_make("b", lambda: 1)

    def make_b():
        second.set()
        assert first.wait(10)
        return cache.get_or_make("a", lambda: 1)

    def ask(number):
        try:
            return cache.get_or_make("ab"[number], (make_a, make_b)[number])
        except RuntimeError:
            return "told"

    assert "told" in together(2, ask)


def test_a_finalizer_may_use_the_cache():
    cache = LRUCache(2, size_of=lambda value: 1, bytes_max=2)

    class Comes:
        def __init__(self):
            self.me = self  # dies by a collection, which may begin anywhere

        def __del__(self):
            cache["back"] = 1

    gc.collect()
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for number in range(300):
            cache[number] = Comes()
    finally:
        gc.set_threshold(*before)
    assert len(cache) <= 2
    assert cache.size_bytes == len(cache)


def test_many_threads_leave_a_cache_that_adds_up():
    cache = LRUCache(50, bytes_max=400, size_of=len)

    def hammer(number):
        for step in range(1_500):
            key = (step * 7 + number) % 90
            match step % 5:
                case 0:
                    cache[key] = b"x" * (key % 20)
                case 1:
                    cache.get(key)
                case 2:
                    cache.get_or_make(key, lambda key=key: b"x" * (key % 20))
                case 3:
                    cache.pop(key)
                case 4 if step % 100 == 4:
                    cache.shrink(0.2)

    together(4, hammer)
    assert cache.size_bytes == sum(len(value) for _, value in cache.items()) <= 400
    assert len(cache) <= 50


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"entries_max": 0}, id="no entries"),
        pytest.param({"entries_max": 1, "bytes_max": 0, "size_of": len}, id="no bytes"),
        pytest.param({"entries_max": 1, "bytes_max": 5}, id="bytes that nobody counts"),
        pytest.param({"entries_max": 1, "ttl_s": 0}, id="no time"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments):
    with pytest.raises(ValueError, match=r"max|ttl"):
        LRUCache(**arguments)


class AgainstAnOrderedDict(RuleBasedStateMachine):
    """An LRU cache of four entries and 20 bytes does as this model of it."""

    keys = st.integers(0, 7)

    def __init__(self):
        super().__init__()
        self.told, self.expected = [], []
        self.cache = LRUCache(
            4, bytes_max=20, size_of=int, on_evict=lambda key, value: self.told.append((key, value))
        )
        self.model = OrderedDict()

    def _make_room(self):
        while len(self.model) > 4 or sum(self.model.values()) > 20:
            self.expected.append(self.model.popitem(last=False))

    @rule(key=keys, size=st.integers(0, 22))
    def put(self, key, size):
        assert self.cache.put(key, size) is (size <= 20)
        self.model.pop(key, None)
        if size <= 20:
            self.model[key] = size
            self._make_room()

    @rule(key=keys, size=st.integers(0, 20))
    def get_or_make(self, key, size):
        if key in self.model:
            self.model.move_to_end(key)
        else:
            self.model[key] = size
            self._make_room()
            expected = size
        expected = self.model.get(key, size)
        assert self.cache.get_or_make(key, lambda: size) == expected

    @rule(key=keys)
    def get(self, key):
        if key in self.model:
            self.model.move_to_end(key)
        assert self.cache.get(key) == self.model.get(key)

    @rule(key=keys)
    def pop(self, key):
        assert self.cache.pop(key) == self.model.pop(key, None)

    @rule(share=st.sampled_from([0, 0.25, 0.5, 1]))
    def shrink(self, share):
        before = sum(self.model.values())
        keep_entries = round(len(self.model) * (1 - share))
        while self.model and (
            sum(self.model.values()) > before * (1 - share)
            if before
            else len(self.model) > keep_entries
        ):
            self.expected.append(self.model.popitem(last=False))
        assert self.cache.shrink(share) == before - sum(self.model.values())

    @rule()
    def clear(self):
        self.cache.clear()
        self.model.clear()

    @invariant()
    def is_as_the_model(self):
        assert self.cache.items() == list(self.model.items())
        assert self.cache.size_bytes == sum(self.model.values())
        assert self.told == self.expected
        assert self.cache.evictions == len(self.expected)


AgainstAnOrderedDict.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
test_any_sequence_of_calls_does_as_the_model = AgainstAnOrderedDict.TestCase


@pytest.mark.parametrize("size", [-1, float("nan")])
def test_a_size_that_is_none_is_refused_and_changes_nothing(size):
    cache = LRUCache(9, bytes_max=10, size_of=lambda value: size if value else 4)
    cache.put("b", "")
    with pytest.raises(ValueError, match="not negative"):
        cache.put("b", "x")
    assert (cache.size_bytes, cache["b"]) == (4, "")


def test_a_finalizer_may_put_the_same_key_in_the_middle_of_a_put(monkeypatch):
    kept = LRUCache(9, bytes_max=100, size_of=len)
    remove, due = kept._remove_locked, [True]

    def removed(key):
        found = remove(key)
        if due:  # a collection of garbage begins
            due.clear()
            kept["a"] = "late"
        return found

    monkeypatch.setattr(kept, "_remove_locked", removed)
    kept["a"] = "xy"
    assert kept["a"] == "xy"
    del kept["a"]
    assert kept.size_bytes == 0
