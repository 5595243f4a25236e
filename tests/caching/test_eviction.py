"""The bounded map keeps its bounds, its accounting and what is asked for."""

from perf_middleware.caching.eviction import BoundedCache


def test_what_is_evicted_is_told_once():
    lost = []
    cache = BoundedCache(bytes_max=100, entries_max=3, on_evict=lambda k, v: lost.append((k, v)))
    for key in range(10):
        assert cache.put(key, str(key), 10)
    assert len(cache) == 3
    assert sorted([*(key for key, _ in lost), *cache.keys()]) == list(range(10))
    assert cache.size_bytes == 30


def test_what_is_larger_than_the_room_is_not_let_in_and_leaves_nothing_outdated():
    lost = []
    cache = BoundedCache(bytes_max=100, entries_max=3, on_evict=lambda k, v: lost.append((k, v)))
    cache.put("a", 1, 100)
    assert not cache.put("a", 2, 101)
    assert cache.get("a") is None
    assert lost == [("a", 1)]
    assert cache.size_bytes == 0
