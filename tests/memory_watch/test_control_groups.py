"""What a group uses and may use, from the texts of its files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.control_groups import Group
from perf_middleware.memory_watch.control_groups import (
    FILES,
    group_limit_bytes,
    group_memory,
    limit_bytes,
    used_bytes,
)

MIB = 1 << 20
V2 = {
    "memory.current": f"{300 * MIB}\n",
    "memory.max": f"{512 * MIB}\n",
    "memory.high": f"{400 * MIB}\n",
    "memory.peak": f"{350 * MIB}\n",
    "memory.stat": f"anon {200 * MIB}\nfile {90 * MIB}\ninactive_file {60 * MIB}\nactive_file 1\n",
    "memory.swap.current": "4096\n",
    "memory.swap.max": "0\n",
    "memory.events": "low 0\nhigh 5\nmax 2\noom 1\noom_kill 1\noom_group_kill 0\n",
}
V1 = {
    "memory.usage_in_bytes": f"{300 * MIB}\n",
    "memory.limit_in_bytes": f"{512 * MIB}\n",
    "memory.max_usage_in_bytes": f"{350 * MIB}\n",
    "memory.stat": f"cache 1\ninactive_file 3\nhierarchical_memory_limit {256 * MIB}\n"
    f"total_inactive_file {60 * MIB}\ntotal_swap 8192\n",
    "memory.failcnt": "7\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
}
TEXTS = {1: V1, 2: V2}


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        pytest.param("536870912\n", 512 * MIB, id="a limit"),
        pytest.param("max\n", None, id="v2 without one"),
        pytest.param("9223372036854771712\n", None, id="v1 without one"),
        pytest.param("9223372036854710272\n", None, id="the same with pages of 64 KiB"),
        pytest.param("0\n", None, id="a call to take back what it can"),
        pytest.param("", None, id="an empty file"),
        pytest.param("lots", None, id="another text"),
    ],
)
def test_what_is_a_limit(text, limit):
    assert limit_bytes(text) == limit


@pytest.mark.parametrize(
    ("version", "changed", "is_top", "limit"),
    [
        pytest.param(2, {}, True, 400 * MIB, id="the smaller of high and max"),
        pytest.param(2, {"memory.high": "max\n"}, True, 512 * MIB, id="max alone"),
        pytest.param(2, {"memory.max": "max\n"}, True, 400 * MIB, id="high alone"),
        pytest.param(2, {"memory.max": "max", "memory.high": "max"}, True, None, id="neither"),
        pytest.param(1, {}, False, 512 * MIB, id="v1 with a group above it"),
        pytest.param(1, {}, True, 256 * MIB, id="v1, and a smaller limit above, out of sight"),
        pytest.param(1, {"memory.stat": ""}, True, 512 * MIB, id="v1 without its stat"),
        pytest.param(
            1,
            {"memory.memsw.limit_in_bytes": f"{512 * MIB}\n"},
            False,
            512 * MIB - 8192,
            id="v1: what was swapped out leaves less of the limit of both",
        ),
        pytest.param(
            1,
            {"memory.memsw.limit_in_bytes": f"{1024 * MIB}\n"},
            False,
            512 * MIB,
            id="v1: a limit of both that leaves enough",
        ),
        pytest.param(
            1,
            {"memory.memsw.limit_in_bytes": "9223372036854771712\n"},
            False,
            512 * MIB,
            id="v1: no limit of both",
        ),
        pytest.param(
            1,
            {"memory.stat": f"hierarchical_memsw_limit {100 * MIB}\ntotal_swap {40 * MIB}\n"},
            True,
            60 * MIB,
            id="v1: a limit of both above it, out of sight",
        ),
    ],
)
def test_the_limit_that_a_group_is_held_to(version, changed, is_top, limit):
    assert group_limit_bytes(version, TEXTS[version] | changed, is_top=is_top) == limit


@pytest.mark.parametrize("version", [1, 2])
def test_page_cache_that_nobody_asked_for_lately_is_not_used(version):
    files, texts = FILES[version], TEXTS[version]
    assert used_bytes(version, texts[files.usage], texts[files.stat]) == 240 * MIB
    assert used_bytes(version, "100\n", texts[files.stat]) == 0  # it grew in between
    assert used_bytes(version, "100\n", "") == 100
    assert used_bytes(version, "", texts[files.stat]) is None


@pytest.mark.parametrize(
    ("version", "stat", "used"),
    [
        pytest.param(2, {"active_file": 0}, 200, id="nothing but what processes wrote"),
        pytest.param(1, {"total_active_file": 20}, 190, id="of a little warm cache half is hot"),
        pytest.param(2, {"active_file": 20}, 190, id="the same in version 2"),
        pytest.param(
            1, {"total_active_file": 130, "total_inactive_file": 0}, 82,
            id="a file that was read twice can be dropped, whatever the kubelet says",
        ),
        pytest.param(
            2, {"inactive_file": 30, "active_file": 60, "slab_reclaimable": 50}, 72,
            id="kernel objects of files too",
        ),
        pytest.param(1, {"active_file": 100}, 200, id="lines of version 1 that leave groups out"),
    ],
)  # fmt: skip
def test_cache_that_can_be_read_again_is_not_used_but_for_its_hot_part(version, stat, used):
    text = "".join(f"{line} {size * MIB}\n" for line, size in stat.items())
    found = used_bytes(version, f"{200 * MIB}\n", text)
    assert found is not None
    assert found // MIB == used


def test_all_figures_of_a_group_of_version_2():
    told = group_memory(Group(2, "/app", "/sys/fs/cgroup/app"), V2, is_top=False)
    assert told is not None
    assert (told.version, told.path) == (2, "/app")
    assert (told.usage_bytes, told.used_bytes) == (300 * MIB, 240 * MIB)
    assert (told.limit_bytes, told.max_bytes, told.high_bytes) == (400 * MIB, 512 * MIB, 400 * MIB)
    assert (told.peak_bytes, told.swap_bytes, told.swap_limit_bytes) == (350 * MIB, 4096, 0)
    assert dict(told.events) == {"high": 5, "max": 2, "oom": 1, "oom_kill": 1}


def test_all_figures_of_a_group_of_version_1():
    told = group_memory(Group(1, "/", "/sys/fs/cgroup/memory"), V1, is_top=True)
    assert told is not None
    assert (told.usage_bytes, told.used_bytes) == (300 * MIB, 240 * MIB)
    assert (told.limit_bytes, told.max_bytes, told.high_bytes) == (256 * MIB, 512 * MIB, None)
    assert (told.peak_bytes, told.swap_bytes, told.swap_limit_bytes) == (350 * MIB, 8192, None)
    assert dict(told.events) == {"max": 7, "oom_kill": 3}


def test_a_group_without_its_usage_is_none():
    group = Group(2, "/app", "/sys/fs/cgroup/app")
    assert group_memory(group, {**V2, "memory.current": ""}, is_top=True) is None
    assert group_memory(group, {}, is_top=True) is None


NUMBERS = st.integers(min_value=0, max_value=2**64).map(str)
LINES = st.builds(
    "{} {}\n".format,
    st.sampled_from(
        ["inactive_file", "active_file", "total_active_file", "total_swap", "oom_kill", "x"]
    ),
    NUMBERS,
)
ANY_TEXT = st.one_of(st.text(), NUMBERS, st.just("max\n"), st.lists(LINES).map("".join))


@given(st.sampled_from([1, 2]), st.booleans(), st.data())
def test_any_texts_are_figures_or_nothing(version, is_top, data):
    texts = {name: data.draw(ANY_TEXT) for name in FILES[version].all_names()}
    told = group_memory(Group(version, "/", "/sys/fs/cgroup"), texts, is_top=is_top)
    if told is not None:
        assert 0 <= told.used_bytes <= told.usage_bytes
        limits = [told.limit_bytes, told.max_bytes, told.high_bytes]
        assert all(limit > 0 for limit in limits if limit is not None)
