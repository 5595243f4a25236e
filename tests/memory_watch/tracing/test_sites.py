"""Which lines grow: named by the app's own, the steady ones first, whatever is in flight last."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.code_roots import CodeRoots
from perf_middleware.memory_watch.tracing.counts import GrownContainer
from perf_middleware.memory_watch.tracing.sites import (
    GrowingSite,
    TraceReport,
    growing_sites,
    named_frame,
    short_path,
)

LIB = "/py/lib/python3.11/"
ROOTS = CodeRoots(machinery=(LIB, "/py/"), projects=("/srv/shop/",), ours=("/x/perf_middleware/",))
SHOP = ("/srv/shop/app/orders.py", 41)
OTHER = ("/srv/shop/app/users.py", 7)
JSON = (f"{LIB}json/decoder.py", 353)
JSON_OUTER = (f"{LIB}json/__init__.py", 346)
DRIVER = ("/srv/shop/.venv/lib/python3.11/site-packages/driver/api.py", 3)
ROUTING = (f"{LIB}site-packages/starlette/routing.py", 5)
OURS = ("/x/perf_middleware/memory_watch/tracing/runtime.py", 9)


def found(begin, middle, end, *, halves_s=(1.0, 1.0), sites_max=20, ignored=()):
    return growing_sites(
        begin, middle, end, halves_s=halves_s, roots=ROOTS, ignored=ignored, sites_max=sites_max
    )


def sites(*looks, **options):
    return found(*looks, **options)[0]


@pytest.mark.parametrize(
    ("frames", "named"),
    [
        pytest.param((SHOP, ROUTING), SHOP, id="the app's own line allocates"),
        pytest.param((JSON, JSON_OUTER, SHOP, ROUTING), SHOP, id="the standard library does"),
        pytest.param((DRIVER, SHOP, OTHER), SHOP, id="the nearest of the app's lines"),
        pytest.param((DRIVER, ROUTING), DRIVER, id="none is the app's: what allocates"),
        pytest.param((OURS,), OURS, id="our own growth is not hidden"),
    ],
)
def test_an_allocation_is_named_by_the_line_its_author_can_change(frames, named):
    assert named_frame(frames, ROOTS) == named


@pytest.mark.parametrize(
    ("file", "short"),
    [
        pytest.param("/srv/shop/app/orders.py", "app/orders.py", id="below the project"),
        pytest.param(DRIVER[0], "driver/api.py", id="an installed package"),
        pytest.param(JSON[0], "json/decoder.py", id="the standard library"),
        pytest.param("/elsewhere/x.py", "/elsewhere/x.py", id="no known place"),
        pytest.param(r"C:\shop\x.py", "C:/shop/x.py", id="backslashes"),
        pytest.param("<string>", "<string>", id="no file"),
        pytest.param("/srv/shop/", "/srv/shop/", id="a root itself"),
    ],
)
def test_a_path_begins_where_it_is_known(file, short):
    assert short_path(file, ROOTS) == short


def test_a_file_whose_name_is_no_text_can_be_told_all_the_same():
    odd = (("/srv/shop/b\udcfccher.py", 3),)
    [site] = sites({}, None, {odd: (900, 9)})
    assert site.where == site.allocated_at == r"b\udcfccher.py:3"


def test_a_site_tells_what_grew_how_fast_and_from_where():
    [site] = sites({}, {(JSON, SHOP): (5_000, 50)}, {(JSON, SHOP): (10_000, 100)})
    assert site == GrowingSite(
        where="app/orders.py:41", bytes=10_000, count=100, bytes_per_s=5_000.0,
        sure_bytes_per_s=5_000.0, is_steady=True,
        allocated_at="json/decoder.py:353",
        stack=("json/decoder.py:353", "app/orders.py:41"), is_own=True,
    )  # fmt: skip
    assert str(site) == (
        "app/orders.py:41 (through json/decoder.py:353): +5,000 bytes/s, steadily, "
        "10,000 bytes in 100 blocks"
    )


@pytest.mark.parametrize(
    ("middle", "end", "steady"),
    [
        pytest.param((500, 50), (1_000, 100), True, id="both halves alike"),
        pytest.param((400, 40), (1_000, 100), True, id="about alike"),
        pytest.param((1_000, 100), (1_000, 100), False, id="in flight: only the first half"),
        pytest.param((0, 0), (1_000, 100), False, id="a burst: only the second half"),
        pytest.param((200, 20), (1_000, 100), False, id="four times as much"),
        pytest.param((1_500, 150), (1_000, 100), False, id="half of it was freed again"),
        pytest.param((500, 3), (1_000, 6), None, id="six blocks are chance"),
        pytest.param(None, (1_000, 100), None, id="without a middle nobody knows"),
    ],
)
def test_steady_is_what_grew_alike_in_both_halves(middle, end, steady):
    [site] = sites({}, None if middle is None else {(SHOP,): middle}, {(SHOP,): end})
    assert site.is_steady is steady


def test_halves_of_different_lengths_are_compared_by_their_rates():
    [site] = sites({}, {(SHOP,): (100, 10)}, {(SHOP,): (400, 40)}, halves_s=(1.0, 3.0))
    assert (site.is_steady, site.bytes_per_s) == (True, 100.0)


def test_what_grows_steadily_comes_before_what_is_only_large():
    middle = {(SHOP,): (500, 50), (OTHER,): (90_000, 90)}
    end = {(SHOP,): (1_000, 100), (OTHER,): (90_100, 91)}
    assert [site.where for site in sites({}, middle, end)] == ["app/orders.py:41", "app/users.py:7"]
    assert sites({}, None, end)[0].where == "app/users.py:7"


def test_lines_of_libraries_below_one_line_of_the_app_are_one_site():
    end = {(JSON, SHOP): (100, 1), (JSON_OUTER, SHOP): (900, 9), (SHOP,): (10, 1)}
    [site] = sites({}, None, end)
    assert (site.bytes, site.count, site.allocated_at) == (1_010, 11, "json/__init__.py:346")


def test_what_was_there_before_does_not_count():
    begin = {(SHOP,): (700, 70), (OTHER,): (500, 5)}
    end = {(SHOP,): (1_000, 100), (OTHER,): (100, 1)}
    answer = found(begin, None, end)
    assert [(site.where, site.bytes, site.count) for site in answer[0]] == [
        ("app/orders.py:41", 300, 30)
    ]
    assert answer[1:] == (-100, 26)


def test_the_tracers_own_lines_and_imports_are_left_out():
    frozen = ("<frozen importlib._bootstrap>", 241)
    end = {(OURS, SHOP): (9, 1), (("/x/clock.py", 3), OURS): (9, 1), (frozen, SHOP): (9, 1)}
    ignored = ["/x/perf_middleware/memory_watch/tracing/"]
    assert found({}, None, end, ignored=ignored) == ((), 0, 0)


def test_a_report_is_a_few_lines_of_text():
    report = TraceReport(
        seconds=5.0,
        sites=sites({}, None, {(SHOP,): (1_000, 100)}, halves_s=(5.0, 0.0)),
        bytes=1_000,
        count=100,
        ended_early="it was stopped",
        containers=(GrownContainer(name="shop.SEEN", kind="list", before=2_000, after=3_200),),
    )
    assert str(report).splitlines() == [
        "traced for 5.0 s: 1,000 bytes more in 100 blocks; ended early: it was stopped",
        "  app/orders.py:41: +200 bytes/s, 1,000 bytes in 100 blocks",
        "  shop.SEEN (list): +1,200 items, 3,200 now",
    ]


LOOKS = st.dictionaries(
    st.lists(st.sampled_from([SHOP, OTHER, JSON, DRIVER]), min_size=1, max_size=4).map(tuple),
    st.tuples(st.integers(0, 10_000), st.integers(0, 100)),
    max_size=12,
)


@given(LOOKS, st.none() | LOOKS, LOOKS, st.integers(1, 4))
def test_sites_are_bounded_distinct_and_add_up_to_no_more_than_grew(begin, middle, end, most):
    listed, grown_bytes, _ = found(begin, middle, end, sites_max=most)
    assert len(listed) <= most
    assert len({site.where for site in listed}) == len(listed)
    assert all(site.bytes > 0 and site.count > 0 for site in listed)
    everything = sum(size for size, _ in end.values()) - sum(size for size, _ in begin.values())
    assert grown_bytes == everything
