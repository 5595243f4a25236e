"""What becomes of entries, by table."""

import pytest

from perf_middleware.tasks.journal.entries import (
    ACCEPTED,
    DEAD,
    ENTRY_BYTES,
    NOBODY,
    RUNNING,
    JournalLimits,
    end_of,
    entry_bytes,
    has_room,
    is_poison,
    may_claim,
    starts_when_handed_back,
)


@pytest.mark.parametrize(
    ("status", "is_unwanted", "end"),
    [
        pytest.param("succeeded", False, "gone", id="it has run"),
        pytest.param("succeeded", True, "gone", id="it has run before it could be cancelled"),
        pytest.param("cancelled", True, "gone", id="the app has cancelled it"),
        pytest.param("cancelled", False, "kept", id="the end of the process has cancelled it"),
        pytest.param("handed_back", False, "kept", id="it did not begin before the end"),
        pytest.param("failed", False, "dead", id="it failed for good"),
    ],
)
def test_an_entry_leaves_the_journal_only_when_it_has_run_or_nobody_wants_it(
    status, is_unwanted, end
):
    assert end_of(status, is_unwanted=is_unwanted) == end


@pytest.mark.parametrize(
    ("state", "owner", "owner_lives", "is_free"),
    [
        (ACCEPTED, "a", True, False),
        (RUNNING, "a", True, False),
        (RUNNING, "a", False, True),
        (ACCEPTED, "a", False, True),
        (ACCEPTED, NOBODY, False, True),
        (DEAD, NOBODY, False, False),
    ],
)
def test_only_what_has_no_living_owner_may_be_claimed(state, owner, owner_lives, is_free):
    assert may_claim(state, owner, owner_lives=owner_lives) is is_free


def test_a_start_counts_unless_its_process_tells_its_end():
    assert starts_when_handed_back(RUNNING, 2) == 1
    assert starts_when_handed_back(ACCEPTED, 2) == 2
    assert [is_poison(starts, JournalLimits(starts_max=2)) for starts in (0, 1, 2)] == [
        False, False, True,
    ]  # fmt: skip


def test_room_is_bounded_by_entries_and_bytes():
    limits = JournalLimits(entries_max=2, bytes_max=1_000)
    size = entry_bytes("task", b"[[],{}]")
    assert size == ENTRY_BYTES + 4 + 7
    assert has_room(limits, entries=1, kept_bytes=1_000 - size, size=size)
    assert not has_room(limits, entries=2, kept_bytes=0, size=size)
    assert not has_room(limits, entries=1, kept_bytes=1_001 - size, size=size)
    with pytest.raises(ValueError, match="1 or more"):
        JournalLimits(starts_max=0)
