"""The caches that ours is compared with do what their names say, and the tables run through."""

import json
import sys
from random import Random

import pytest

from benchmarks import eviction
from benchmarks.eviction import (
    LRU,
    OURS,
    POLICIES,
    Extent,
    FifoCache,
    LfuCache,
    LruCache,
    belady,
    compare,
    simulate,
)
from benchmarks.traces import UNBOUNDED, Trace, mixed_sizes, stack, suite, twice, zipf


def trace(*requests, entries_max=2):
    return Trace(name="a trace", requests=requests, entries_max=entries_max)


@pytest.mark.parametrize(
    ("cache", "requests", "hits"),
    [
        pytest.param(LruCache, (1, 2, 1, 3, 1, 2), 2, id="LRU keeps what was asked for last"),
        pytest.param(FifoCache, (1, 2, 1, 3, 1, 2), 1, id="FIFO lets the first one go"),
        pytest.param(LfuCache, (1, 1, 1, 2, 3, 4, 1), 3, id="LFU keeps what was asked for often"),
        pytest.param(LfuCache, (1, 2, 2, 3, 1), 1, id="LFU lets go what was never asked for again"),
    ],
)
def test_the_classics_keep_what_their_name_says(cache, requests, hits):
    ratios = simulate(trace(*requests), cache(bytes_max=UNBOUNDED, entries_max=2))

    assert ratios.hits * len(requests) == pytest.approx(hits)


@pytest.mark.parametrize(
    ("requests", "hits"),
    [
        pytest.param((1, 2, 3, 1, 2, 3), 2, id="a loop one larger than the room"),
        pytest.param((1, 2, 3, 4, 5), 0, id="nothing twice"),
        pytest.param((1, 2, 1, 2, 1, 2), 4, id="all fits"),
        pytest.param((1, 2, 3, 4, 1, 5, 6, 2), 2, id="what comes back is kept through a scan"),
    ],
)
def test_the_bound_is_what_a_cache_that_knows_the_future_hits(requests, hits):
    assert belady(trace(*requests)) * len(requests) == pytest.approx(hits)


def test_no_cache_is_above_the_bound_and_each_within_its_room():
    for one in suite(keys=300, requests=2000):
        compared = compare(one)
        assert list(compared.ratios) == list(POLICIES)
        if compared.bound is not None:
            assert max(ratios.hits for ratios in compared.ratios.values()) <= compared.bound
        for build in POLICIES.values():
            cache = build(one.bytes_max, one.entries_max)
            simulate(one, cache)
            held = [key for key in set(one.requests) if cache.get(key) is not None]
            assert 0 < len(held) <= one.entries_max
            assert sum(map(one.size_of, held)) <= one.bytes_max
        line = eviction.ratio_line(compared)
        assert one.name in line
        assert f"{compared.lead_points:+.1f}" in line


def test_a_trace_is_the_same_whenever_it_is_drawn():
    first, second = suite(keys=200, requests=500), suite(keys=200, requests=500)
    for one, other in zip(first, second, strict=True):
        assert one == other


def test_zipf_asks_for_the_first_rank_twice_as_often_as_for_the_second():
    drawn = zipf(50, 1.0, 40_000, Random(1))
    counts = sorted((drawn.count(key) for key in range(50)), reverse=True)

    assert counts[0] / counts[1] == pytest.approx(2, rel=0.1)
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.2)


def test_lru_has_what_the_stack_model_asks_for_within_its_room():
    drawn = stack(5000, Random(1), depth=50, new_share=0.2, alpha=0.0)
    cache = LruCache(bytes_max=UNBOUNDED, entries_max=50)

    assert simulate(trace(*drawn), cache).hits == pytest.approx(0.8, abs=0.02)


def test_every_key_of_the_trace_of_pairs_comes_twice_at_most():
    drawn = twice(2000, Random(1), apart=30)

    counts = [drawn.count(key) for key in set(drawn)]
    assert set(counts) == {1, 2}
    assert counts.count(1) < 60


def test_mixed_sizes_are_as_many_in_every_octave():
    sizes = mixed_sizes(20_000, Random(1), low=100, high=100 * 2**10)

    for octave in range(10):
        low = 100 * 2**octave
        assert sum(low <= size < 2 * low for size in sizes) == pytest.approx(2000, rel=0.1)


def test_the_tables_run_through(monkeypatch, capsys, tmp_path):
    extent = Extent(keys=200, requests=400, entries=(20, 40), rounds=3)
    monkeypatch.setattr(eviction, "NORMAL", extent)
    monkeypatch.setattr(eviction, "OPERATIONS", 50)
    path = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["eviction", "--json", str(path)])

    eviction.main()

    out = capsys.readouterr().out
    for words in ("Zipf 0.9, room for 1 %", "farthest behind LRU", "put, evicting", "bytes an ent"):
        assert words in out
    rows = json.loads(path.read_text())
    assert rows[0]["ratios"][OURS].keys() == {"hits", "bytes"}
    assert [cost["name"] for cost in rows[-2]["costs"]] == [LRU, OURS]
    assert rows[-1]["entries"] == 40
