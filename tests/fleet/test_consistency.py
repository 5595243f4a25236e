"""The checker itself: it must see what is stale, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fleet.consistency import Read, Write, expected_after_soft, judge

BOUND_S = 1.0


def write(version, end_s, *, start_s=None, places="a", certain=True):
    start_s = end_s - 0.1 if start_s is None else start_s
    return Write(frozenset(places), version, start_s, end_s, certain=certain)


def read(version, start_s, *, place="a"):
    return Read(place, version, start_s, start_s + 0.1)


@pytest.mark.parametrize(
    ("writes", "seen", "worst_s", "is_stale"),
    [
        pytest.param([], read(0, 9.0), 0.0, False, id="nothing was written"),
        pytest.param([write(1, 5.0)], read(1, 9.0), 0.0, False, id="what was written"),
        pytest.param([write(1, 5.0)], read(2, 9.0), 0.0, False, id="something newer"),
        pytest.param([write(1, 5.0)], read(0, 9.0), 4.0, True, id="beyond the bound"),
        pytest.param([write(1, 5.0)], read(0, 5.5), 0.5, False, id="within the bound"),
        pytest.param([write(1, 5.0)], read(0, 6.0), 1.0, False, id="the bound itself is allowed"),
        pytest.param([write(1, 5.0)], read(0, 5.0), 0.0, False, id="started as the write ended"),
        pytest.param(
            [write(1, 5.0, start_s=1.0)], read(0, 4.9), 0.0, False, id="started while it ran"
        ),
        pytest.param(
            [write(1, 5.0, certain=False)], read(0, 9.0), 0.0, False, id="a write without an answer"
        ),
        pytest.param(
            [write(1, 2.0), write(2, 5.0, certain=False)], read(0, 9.0), 7.0, True,
            id="a write without an answer excuses no older one",
        ),
        pytest.param(
            [write(1, 5.0), write(2, 8.8)], read(1, 9.0), 0.2, False, id="one behind, just now"
        ),
        pytest.param(
            [write(1, 5.0), write(2, 8.8)], read(0, 9.0), 4.0, True, id="two behind: the older one"
        ),
        pytest.param(
            [write(1, 8.8), write(2, 5.0)], read(0, 9.0), 4.0, True,
            id="a newer version that was done first counts for the older one too",
        ),
        pytest.param(
            [write(1, 5.0, places="b")], read(0, 9.0), 0.0, False, id="of another place"
        ),
        pytest.param([write(1, 5.0, places="ab")], read(0, 9.0), 4.0, True, id="of several places"),
    ],
)  # fmt: skip
def test_a_read_is_stale_if_it_started_beyond_the_bound_after_what_it_misses(
    writes, seen, worst_s, is_stale
):
    verdict = judge(writes, [seen], bound_s=BOUND_S)
    assert verdict.worst_s == pytest.approx(worst_s)
    assert [found.read for found in verdict.stale] == [seen] * is_stale


def test_what_it_counts():
    writes = [write(1, 1.0), write(2, 2.0), write(3, 3.0, certain=False)]
    verdict = judge(writes, [read(2, 9.0), read(1, 2.5), read(0, 9.0)], bound_s=BOUND_S)
    assert (verdict.reads, verdict.writes, verdict.maybe) == (3, 2, 1)
    assert verdict.outdated == 2
    assert len(verdict.stale) == 1


def test_a_write_that_ends_before_it_starts_is_none():
    with pytest.raises(ValueError, match="ends before it starts"):
        write(1, 1.0, start_s=2.0)


@pytest.mark.parametrize(
    ("seen", "stale"),
    [
        pytest.param([(0, 9.0, "p")], 0, id="once more, however late"),
        pytest.param([(0, 3.5, "p"), (0, 9.0, "p")], 1, id="and not again beyond the bound"),
        pytest.param([(0, 8.5, "p"), (0, 9.0, "p")], 0, id="within it, while the app is asked"),
        pytest.param([(0, 3.5, "p"), (0, 9.0, "q")], 0, id="each process for itself"),
        pytest.param([(0, 2.5, "p"), (0, 9.0, "p")], 0, id="before it has heard, it does not ask"),
        pytest.param([(0, 1.0, "p"), (0, 9.0, "p")], 0, id="what was read before tells nothing"),
        pytest.param([(1, 3.5, "p"), (0, 9.0, "p")], 1, id="never back from what is new"),
    ],
)
def test_after_a_soft_purge_a_process_gives_the_old_once_more(seen, stale):
    reads = [Read("a", version, at_s, at_s + 0.1, by=by) for version, at_s, by in seen]
    expected, own = expected_after_soft([write(1, 2.0)], reads, bound_s=BOUND_S)
    assert len(judge(expected, own, bound_s=BOUND_S).stale) == stale


TIMES = st.integers(0, 40).map(lambda tenths: tenths / 10)
VERSIONS = st.integers(0, 6)
WRITES = st.builds(
    lambda places, version, start_s, lasted_s, certain: Write(
        places, version, start_s, start_s + lasted_s, certain
    ),
    st.frozensets(st.sampled_from("ab"), min_size=1), VERSIONS, TIMES, TIMES, st.booleans(),
)  # fmt: skip
READS = st.builds(
    lambda place, version, start_s: Read(place, version, start_s, start_s + 1),
    st.sampled_from("ab"), VERSIONS, TIMES,
)  # fmt: skip


@given(st.lists(WRITES, max_size=8), st.lists(READS, max_size=8))
def test_it_says_the_same_as_the_definition(writes, reads):
    """A read that started later than (end of a write of version v) + bound gives v or newer."""
    stale = {
        read
        for read in reads
        for done in writes
        if done.certain
        and read.place in done.places
        and read.version < done.version
        and read.start_s - done.end_s > BOUND_S
    }
    assert {found.read for found in judge(writes, reads, bound_s=BOUND_S).stale} == stale
