"""Every limit that holds, and how much of each is used."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.memory_watch.bounds import Limits, OwnUse, bounds_of, tightest_of_each
from perf_middleware.memory_watch.reading import Bound, SystemMemory

OWN = OwnUse(rss_bytes=100, data_bytes=150, virtual_bytes=400)
SYSTEM = SystemMemory(total_bytes=1000, available_bytes=300)
GROUP = Bound(name="cgroup", used_bytes=240, limit_bytes=480, where="/app")


@pytest.mark.parametrize(
    ("limits", "own", "groups", "system", "bounds"),
    [
        pytest.param(Limits(), OWN, [], None, [], id="no limit"),
        pytest.param(
            Limits(configured_bytes=200), OWN, [], None, [("configured", 100, 200)],
            id="configured, against RSS",
        ),
        pytest.param(
            Limits(data_bytes=300), OWN, [], None, [("rlimit_data", 150, 300)],
            id="RLIMIT_DATA, against private data",
        ),
        pytest.param(
            Limits(virtual_bytes=800), OWN, [], None, [("rlimit_as", 400, 800)],
            id="RLIMIT_AS, against address space",
        ),
        pytest.param(
            Limits(data_bytes=300, virtual_bytes=800, configured_bytes=200),
            OwnUse(rss_bytes=100, data_bytes=150, virtual_bytes=400, free_bytes=60), [], None,
            [("configured", 100, 200), ("rlimit_data", 120, 300), ("rlimit_as", 370, 800)],
            id="half of what malloc has free is given out again before the system is asked",
        ),
        pytest.param(Limits(), OWN, [], SYSTEM, [("system", 100, 400)], id="the system's memory"),
        pytest.param(
            Limits(configured_bytes=200), OWN, [GROUP], SYSTEM,
            [("configured", 100, 200), ("cgroup", 240, 480), ("system", 100, 400)],
            id="several: none replaces another",
        ),
        pytest.param(
            Limits(), OWN, [], SystemMemory(total_bytes=100_000, available_bytes=5_000),
            [("system", 100, 5_100)], id="a machine that others fill is not ours to relieve",
        ),
        pytest.param(
            Limits(), OwnUse(rss_bytes=900), [],
            SystemMemory(total_bytes=1000, available_bytes=100),
            [("system", 900, 1000)], id="one that this process fills is",
        ),
        pytest.param(
            Limits(), OWN, [], SystemMemory(total_bytes=1000, available_bytes=0),
            [("system", 100, 100)], id="nothing is left to anybody",
        ),
        pytest.param(
            Limits(data_bytes=300, virtual_bytes=800), OwnUse(rss_bytes=1), [], None, [],
            id="use that the platform does not tell",
        ),
        pytest.param(
            Limits(data_bytes=0), OWN, [], None, [("rlimit_data", 150, 1)],
            id="a limit of nothing",
        ),
    ],
)  # fmt: skip
def test_bounds_are_all_that_are_known(limits, own, groups, system, bounds):
    found = bounds_of(limits, own, groups=groups, system=system)
    assert [(one.name, one.used_bytes, one.limit_bytes) for one in found] == bounds


def test_of_each_kind_the_tightest_counts():
    loose = Bound(name="cgroup", used_bytes=240, limit_bytes=4800, where="/")
    system = Bound(name="system", used_bytes=1, limit_bytes=2)
    assert tightest_of_each([loose, GROUP, system]) == {"cgroup": GROUP, "system": system}


SIZES = st.integers(min_value=0, max_value=2**62)
MAYBE = st.none() | SIZES


@given(
    st.builds(Limits, configured_bytes=MAYBE, data_bytes=MAYBE, virtual_bytes=MAYBE),
    st.builds(OwnUse, rss_bytes=SIZES, data_bytes=MAYBE, virtual_bytes=MAYBE),
    st.none() | st.builds(SystemMemory, total_bytes=SIZES, available_bytes=SIZES),
)
def test_any_figures_are_bounds_with_a_share(limits, own, system):
    assert all(bound.share >= 0 for bound in bounds_of(limits, own, system=system))
