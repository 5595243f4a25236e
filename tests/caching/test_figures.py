"""What the cache counts, and how a scrape sees it."""

from perf_middleware.caching.figures import ROUTES_MAX, CacheFigures, RouteCounts
from perf_middleware.families import OTHER

SIZES = {"entries": 3, "size_bytes": 4_000, "bytes_max": 9_000, "evictions": 2, "waiting": 1}


def exposed(figures):
    return {family.name: family for family in figures.families(**SIZES)}


def labels(point):
    return dict(point.labels.pairs)


def test_each_route_has_its_counts():
    figures = CacheFigures()
    figures.of("/a").hits += 2
    figures.of("/b").hits += 1
    assert figures.of("/a").hits == 2
    assert figures.of("/a") is figures.of("/a")


def test_routes_beyond_the_bound_count_together():
    figures = CacheFigures()
    for number in range(ROUTES_MAX + 20):
        figures.of(f"/{number}").hits += 1
    assert figures.of("/0").hits == 1
    assert figures.of(OTHER).hits == 20
    assert len(figures.by_route) == ROUTES_MAX + 1
    assert figures.totals()["hits"] == ROUTES_MAX + 20


def test_the_totals_add_all_routes_up():
    figures = CacheFigures()
    one, other = figures.of("/a"), figures.of("/b")
    one.hits, one.stale_hits, one.collapsed, one.shared_hits = 5, 2, 1, 3
    other.hits, other.revalidated, other.stored = 1, 4, 3
    one.misses = {"uri-miss": 1, "stale": 1}
    other.bypassed = {"rule": 7}
    figures.invalidated = 9
    assert figures.totals() == {
        "hits": 6, "shared_hits": 3, "stale_hits": 2, "misses": 2, "bypassed": 7, "collapsed": 1,
        "revalidated": 4, "stored": 3, "invalidated": 9, "hit_ratio": 0.75,
    }  # fmt: skip


def test_a_silent_miss_is_told_as_one_and_as_a_refusal():
    figures = CacheFigures()
    counts = figures.of("/a")
    counts.silent = 2
    counts.misses, counts.refused = {"uri-miss": 1, "stale": 5}, {"no-freshness": 7, "no-store": 8}
    assert figures.totals()["misses"] == 8
    families = exposed(figures)
    assert {
        (name, labels(point)["reason"]): point.value
        for name in ("perf_cache_misses", "perf_cache_refused")
        for point in families[name].points
    } == {
        ("perf_cache_misses", "uri-miss"): 3,
        ("perf_cache_misses", "stale"): 5,
        ("perf_cache_refused", "no-freshness"): 9,
        ("perf_cache_refused", "no-store"): 8,
    }
    figures.reset()
    assert figures.totals()["misses"] == 0


def test_a_cache_that_nobody_asked_has_no_hit_ratio():
    assert CacheFigures().totals()["hit_ratio"] is None


def test_every_counter_is_exposed_by_route():
    figures = CacheFigures()
    counts = figures.of("/a")
    plain = [name for name in RouteCounts.__slots__ if isinstance(getattr(counts, name), int)]
    plain.remove("silent")  # told among the misses and the refusals
    for number, name in enumerate(plain, 1):
        setattr(counts, name, number)
    families = exposed(figures)
    for number, name in enumerate(plain, 1):
        (point,) = families[f"perf_cache_{name}"].points
        assert (labels(point), point.value) == ({"route": "/a"}, number)


def test_misses_bypasses_and_refusals_are_exposed_by_reason():
    figures = CacheFigures()
    figures.of("/a").misses = {"uri-miss": 1, "stale": 2}
    figures.of("/b").misses = {"stale": 3}
    figures.of("/a").bypassed = {"rule": 4}
    figures.of("/a").refused = {"no-store": 5}
    families = exposed(figures)
    told = {
        name: [(labels(point)["route"], labels(point)["reason"], point.value) for point in points]
        for name, points in ((name, family.points) for name, family in families.items())
        if name in {"perf_cache_misses", "perf_cache_bypassed", "perf_cache_refused"}
    }
    assert told == {
        "perf_cache_misses": [("/a", "uri-miss", 1), ("/a", "stale", 2), ("/b", "stale", 3)],
        "perf_cache_bypassed": [("/a", "rule", 4)],
        "perf_cache_refused": [("/a", "no-store", 5)],
    }


def test_the_store_is_exposed_whole():
    figures = CacheFigures()
    figures.invalidated, figures.background_failed = 5, 6
    families = exposed(figures)
    values = {
        name: families[f"perf_cache_{name}"].points[0].value
        for name in ("entries", "bytes", "bytes_max", "evictions", "waiting", "invalidated",
                     "background_failures")
    }  # fmt: skip
    assert values == {
        "entries": 3, "bytes": 4_000, "bytes_max": 9_000, "evictions": 2, "waiting": 1,
        "invalidated": 5, "background_failures": 6,
    }  # fmt: skip
