"""Growth whose rate falls is no leak, however seldom malloc is read; a leak is told as soon."""

import itertools
import math
import random

import pytest

from perf_middleware.memory_watch.leaks.confirming import goes_on
from perf_middleware.memory_watch.leaks.growth import growth_of, rate_falls
from perf_middleware.memory_watch.leaks.history import History, of_witness
from perf_middleware.memory_watch.leaks.runtime import LeakWatch
from perf_middleware.memory_watch.leaks.runtime.inquiry import Looks
from perf_middleware.memory_watch.leaks.verdict import Rules, is_suspect
from perf_middleware.memory_watch.reading import Witness
from tests.memory_watch.leaks.synthetic import KB, RATE, US, Grown, Report, points_of, witness

HZ = 100  # requests a second
SECONDS = 62
SEEDS = range(40)
OBJECT_BYTES = 2 * KB
TRACE_S = 7  # with its snapshots, in a process that is busy
RANKS = range(1, 8_001)
ZIPF = list(itertools.accumulate(1 / rank for rank in RANKS))

# A cache under Zipf's law in a process of its own (clean_workloads.py), seen once a second:
# seconds, anonymous kB, blocks, malloc's kB, which was read every 5 s, requests.
RECORDED = [
    (10.02, 23621, 126559, 9342, 1002),
    (11.02, 23871, 126806, 9342, 1102),
    (12.02, 24076, 127013, 9342, 1203),
    (13.02, 24264, 127193, 9342, 1303),
    (14.02, 24444, 127373, 9342, 1403),
    (15.02, 24633, 127549, 10341, 1503),
    (16.02, 24813, 127735, 10341, 1603),
    (17.02, 24985, 127893, 10341, 1703),
    (18.02, 25169, 128071, 10341, 1803),
    (19.03, 25366, 128264, 10341, 1903),
    (20.03, 25530, 128430, 11222, 2003),
    (21.03, 25681, 128579, 11222, 2103),
    (22.03, 25931, 128751, 11222, 2203),
    (23.03, 26112, 128925, 11222, 2303),
    (24.03, 26275, 129087, 11222, 2403),
    (25.03, 26419, 129229, 12102, 2503),
    (26.03, 26587, 129399, 12102, 2603),
    (27.03, 26738, 129539, 12102, 2704),
    (28.03, 26914, 129713, 12102, 2804),
    (29.03, 27049, 129846, 12102, 2904),
    (30.03, 27181, 129978, 12847, 3004),
    (31.03, 27340, 130128, 12847, 3104),
    (32.03, 27488, 130282, 12847, 3204),
    (33.03, 27619, 130411, 12847, 3304),
    (34.03, 27766, 130553, 12847, 3404),
    (35.04, 27910, 130689, 13562, 3504),
    (36.04, 28041, 130823, 13562, 3604),
    (37.04, 28160, 130940, 13562, 3704),
    (38.04, 28266, 131048, 13562, 3804),
]


def zipf_cache(chance):
    """Entries of a cache of all that was asked for, after each request of five keys."""
    kept = set()
    for _ in range(HZ * SECONDS):
        kept.update(chance.choices(RANKS, cum_weights=ZIPF, k=5))
        yield len(kept)


def leak(chance):
    """The same, where a key in six is kept, whatever is there already."""
    kept = 0
    for _ in range(HZ * SECONDS):
        kept += sum(chance.random() < 0.17 for _ in range(5))
        yield kept


def told_at(work, seed, *, malloc_every_s):
    """When a leak is told, seconds; None: never.  A trace finds the line of all that grows."""
    chance = random.Random(seed)
    kept = list(work(chance))
    tracing, found = [], {}
    watch = LeakWatch(
        looks=Looks(
            census=None,
            collect=lambda: found["in_use"],
            trace=lambda _: found["report"],
            trace_s=5,
            start=tracing.append,
        )
    )
    second = began = 0.0
    malloc, read_at = 0, -chance.uniform(0, malloc_every_s)
    while second < SECONDS:
        number = int(second * HZ)
        grown = kept[number] * OBJECT_BYTES
        if second - read_at >= malloc_every_s:
            malloc, read_at = grown, second
        found["in_use"] = kept[number], grown
        watch.observe(
            Witness(
                at_us=round(second * US),
                anonymous_bytes=grown // 4_096 * 4_096,
                blocks=kept[number] + chance.randint(0, 6),
                malloc_bytes=malloc,
                requests=max(0, number + chance.randint(-1, 1)),
            )
        )
        if watch.verdict is not None and watch.verdict.kind == "leak":
            return second
        if not tracing:
            began, before = second, grown
        elif second - began >= TRACE_S:
            rate = (grown - before) / (second - began)
            found["report"] = Report((Grown("cache.py:65", rate),))
            tracing.pop()()
        second += 1 + abs(chance.gauss(0, 0.03))  # the watch's thread is late on a busy machine
    return None


@pytest.mark.parametrize("malloc_every_s", [0, 2, 5, 8])
def test_a_cache_under_zipfs_law_is_hardly_ever_told_as_a_leak(malloc_every_s):
    """Twenty of forty were, where malloc was read every 5 s."""
    told = [told_at(zipf_cache, seed, malloc_every_s=malloc_every_s) for seed in SEEDS]
    # Chance may have the keys come so that the rate hardly falls for a while: two of 120 seeds.
    assert sum(second is not None for second in told) <= 1


@pytest.mark.parametrize("malloc_every_s", [0, 2, 5, 8])
def test_a_leak_in_the_same_noise_is_told_in_time(malloc_every_s):
    told = [told_at(leak, seed, malloc_every_s=malloc_every_s) for seed in SEEDS]
    assert max(told) <= 54


def test_a_recorded_cache_is_not_looked_into_because_of_malloc_s_stairs():
    history = History(bucket_us=2 * US)
    for second, anonymous, blocks, malloc, requests in RECORDED:
        seen = Witness(
            at_us=round(second * US),
            anonymous_bytes=anonymous * KB,
            blocks=blocks,
            malloc_bytes=malloc * KB,
            requests=requests,
        )
        history.add(seen)
    found = growth_of(history.points(0), level=0)
    assert found.malloc.shape == "steady", "as it looked"
    assert found.malloc.is_coarse
    assert found.blocks.shape == "slowing"
    assert not is_suspect(found, Rules())


def test_stairs_of_malloc_hide_no_leak_where_the_blocks_say_nothing():
    look = lambda s: witness(s, 200 * KB * (s // 5 * 5), blocks=0)  # noqa: E731
    found = growth_of(points_of(look), level=0)
    assert found.malloc.is_coarse
    assert is_suspect(found, Rules())


@pytest.mark.parametrize("tau_s", [20, 40, 60])
def test_a_rate_that_falls_smoothly_is_seen_in_the_shortest_time(tau_s):
    """Its thirds may be nearly alike, and the intervals of its halves touch."""
    look = lambda s: witness(s, 300 * KB * tau_s * (1 - math.exp(-s / tau_s)))  # noqa: E731
    assert growth_of(points_of(look), level=0).blocks.shape == "slowing"


def looks(grown, requests, seconds):
    return [of_witness(witness(s, grown(s), requests=requests(s))) for s in seconds]


@pytest.mark.parametrize(
    ("grown", "requests", "still"),
    [
        pytest.param(lambda s: 200 * KB * s, lambda s: RATE * s, True, id="a leak"),
        pytest.param(
            lambda s: 9_600 * KB * math.log(s), lambda s: RATE * s, False, id="it slows down"
        ),
        pytest.param(
            lambda s: KB * RATE * 48 * math.log(s),
            lambda s: RATE * 48 * math.log(s),
            True,
            id="a leak of requests that become fewer",
        ),
        pytest.param(
            lambda s: 200 * KB * s, lambda s: RATE * s * s / 40, True, id="the load rises"
        ),
    ],
)
def test_what_slows_down_after_the_time_that_it_is_judged_by_does_not_go_on(grown, requests, still):
    """Though it is above 70 % of the whole time's rate, as a logarithm is."""
    steady = growth_of(points_of(lambda s: witness(s, 150 * KB * s), start=30), level=0)
    before = looks(grown, requests, range(30, 58, 2))
    after = looks(grown, requests, range(64, 69))
    assert goes_on(steady, before, after) is still


def test_a_rate_falls_where_nearly_each_step_is_less_than_the_one_before():
    line = [(x, 3 * x) for x in range(14)]
    bent = [(x, 3 * x - x * x / 20) for x in range(14)]
    assert not rate_falls(line)
    assert rate_falls(bent)
    assert not rate_falls(bent[:3])  # of two steps nothing is sure
    assert rate_falls(bent[:7], [(x, y + 1_000) for x, y in bent[7:]])  # a leap between them
    assert not rate_falls([])
