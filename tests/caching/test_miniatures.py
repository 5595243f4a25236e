"""Two miniature caches find out which window suits the requests, and soon when it changes."""

from random import Random

import pytest

from perf_middleware.caching.miniatures import MINIATURE_LENGTH, PERIOD, Miniatures, Recent
from perf_middleware.caching.two_queues import ALL, TwoQueues

ROOMY = 1 << 40


def drive(miniatures, keys, *, length=50, size_bytes=1):
    """Ask for `keys` as a cache of `length` entries would: the windows that led."""
    led = []
    for key in keys:
        hashed = hash((key,))
        if not hashed & miniatures.mask and miniatures.ask(hashed, size_bytes):
            miniatures.judge(length)
            led.append(miniatures.window_percent)
    return led


def pairs(count, *, first=0, apart=30):
    """Every key twice, so far apart: LRU has the second, a small window none."""
    for at in range(first, first + count, apart):
        yield from range(at, at + apart)
        yield from range(at, at + apart)


def popular(count, seed=1):
    random = Random(seed)
    return (int(random.paretovariate(0.6)) for _ in range(count))


def test_the_small_window_leads_where_some_keys_are_popular():
    led = drive(Miniatures(bytes_max=ROOMY, entries_max=50), popular(5000))

    assert led.count(1) > 0.9 * len(led)


def test_the_whole_window_leads_where_what_was_recent_comes_again():
    led = drive(Miniatures(bytes_max=ROOMY, entries_max=50), pairs(5000))

    assert led[-1] == 100
    assert led.count(100) > 0.9 * len(led)


@pytest.mark.parametrize("before", [200, 20_000])
def test_a_long_lead_does_not_hide_that_the_requests_have_changed(before):
    miniatures = Miniatures(bytes_max=ROOMY, entries_max=50)
    drive(miniatures, popular(before))
    assert miniatures.window_percent == 1

    drive(miniatures, pairs(2 * PERIOD, first=10**9))

    assert miniatures.window_percent == 100


@pytest.mark.parametrize(
    ("length", "sampled"),
    [
        pytest.param(10, 1, id="all of a tiny cache"),
        pytest.param(2 * MINIATURE_LENGTH, 1, id="all up to twice their length"),
        pytest.param(10_000, 1 / 128, id="few of a large one"),
        pytest.param(1_000_000, 1 / 8192, id="fewer of a larger one"),
    ],
)
def test_the_sample_is_the_smaller_the_larger_the_cache(length, sampled):
    miniatures = Miniatures(bytes_max=ROOMY, entries_max=length)
    drive(miniatures, range(PERIOD), length=length)

    assert miniatures.mask + 1 == 1 / sampled
    drive(miniatures, range(100 * PERIOD), length=length)
    for hashes in (miniatures.small.entries, miniatures.whole.sizes):
        assert len(hashes) <= 2 * MINIATURE_LENGTH
        assert all(hashed & miniatures.mask == 0 for hashed in hashes)


def test_a_cache_that_has_become_small_is_sampled_whole_again():
    miniatures = Miniatures(bytes_max=ROOMY, entries_max=10_000)
    drive(miniatures, range(PERIOD), length=10_000)
    drive(miniatures, range(200 * PERIOD), length=20)

    assert miniatures.mask == 0
    assert miniatures.small.entries_max == 10_000


def test_an_entry_larger_than_a_part_of_a_miniature_is_not_tried():
    miniatures = Miniatures(bytes_max=1_000_000, entries_max=10_000)
    drive(miniatures, range(PERIOD), length=10_000)
    drive(miniatures, range(20_000, 30_000), size_bytes=20_000, length=10_000)

    assert all(entry.size_bytes == 1 for entry in miniatures.small.entries.values())
    assert set(miniatures.whole.sizes.values()) == {1}


def test_the_miniature_of_the_whole_window_decides_as_two_queues_of_that_window():
    random = Random(7)
    room = {"bytes_max": 100, "entries_max": 12}
    queues, recent = TwoQueues(**room, window_percent=ALL), Recent(**room)
    for asked in range(4000):
        if asked == 2000:  # a sample of half the keys from here on
            queues.resize(bytes_max=50, entries_max=6, window_percent=ALL)
            for entry in [entry for key, entry in queues.entries.items() if key & 1]:
                queues.remove(entry)
            queues.make_room(0, 0)
            recent.rescale(bytes_max=50, entries_max=6, mask=1)
        key, size_bytes = random.randrange(30), random.randrange(40)
        entry = queues.entries.get(key)
        assert recent.ask(key, size_bytes) is (entry is not None)
        if entry is None:
            queues.insert(key, key, None, size_bytes)
        else:
            queues.read(entry)
        assert recent.sizes.keys() == queues.entries.keys()
        assert recent.size_bytes == queues.size_bytes
