"""Writes that are announced before their COMMIT: what is to be purged if their writer cannot.

    writer    announces tags -> COMMIT -> purges -> lifts             (renews while that takes long)
                 |<------------ KEPT_MS ------------>| overdue
    others                                           no lease before they have purged in its place

An intention that is written down before the deed, so that anybody can finish it.  A lease on memory
(`hearing`) is renewed only where no announcement is overdue, in one atomic step of the server.

Invariant: whoever answers out of memory now has renewed less than a lease ago, so whatever was
overdue a lease ago is purged, and done in its memory.  So a COMMIT that takes effect before its
announcement is overdue is older than nothing that is answered KEPT_MS and a lease after its writer
was last heard: killed, stopped, or cut off from the server.

- The announcement is answered before COMMIT is sent, and not long before (`GOOD_FOR_US`): a writer
  that was paused in between announces anew.
- Each writer has its own: nobody lifts another's, and several writers of a tag do not count.
- Renewals say until when at most, so that one which is delivered late, from a connection that is
  lost, prolongs nothing.  What was answered late was begun early: nobody counts on it.
- A COMMIT may take effect after its writer has died, in a database that is slow: what was purged in
  its place is purged once more AGAIN_MS later.
- Nothing is forbidden to readers meanwhile, nothing is purged and nobody is waited for before
  COMMIT: locks are held for one round trip more, and a rollback costs others nothing.
Source: Gray, Notes on Data Base Operating Systems, 1978 (an intention is logged before it is done).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import ormsgpack

from perf_middleware.fleet.layout import bytes_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable

KEPT_MS: Final = 3_000  # with a lease and clocks that run wrong less than a barrier waits (BACK_US)
AGAIN_MS: Final = 30_000
GOOD_FOR_US: Final = KEPT_MS * 1_000 // 2
RENEWALS: Final = 3  # while it is kept: two may be lost or late
OPEN_US_MAX: Final = 600_000_000  # a COMMIT that takes longer has lost its writer somewhere
OPEN_MAX: Final = 10_000
OVERDUE_AT_ONCE: Final = 50
TAGS_BYTES_MAX: Final = 16_384  # more are named as all of them
NAME_BYTES: Final = 8
FIRST: Final = b"0"
AGAIN: Final = b"1"

Overdue: TypeAlias = "list[tuple[bytes, int]]"
"""Members of the set of announcements, and until which of the server's ms they were kept."""


@dataclass(frozen=True, slots=True)
class Announced:
    """One announcement that the server has; COMMIT is to be sent before `good_until_us`."""

    token: bytes
    good_until_us: int


def token_of(name: bytes, tags: Iterable[str], *, all_tags: Iterable[str]) -> bytes:
    """A name that is nobody else's, and the tags; `all_tags` in place of too many."""
    if len(name) != NAME_BYTES:
        raise ValueError(f"a name has {NAME_BYTES} bytes: {name!r}")
    packed = ormsgpack.packb([bytes_of(tag) for tag in sorted(tags)])
    if len(packed) > TAGS_BYTES_MAX:
        packed = ormsgpack.packb([bytes_of(tag) for tag in sorted(all_tags)])
    return name + packed


def tags_in(member: bytes, *, all_tags: Iterable[str]) -> frozenset[str]:
    """What a member of the set names; `all_tags` where it cannot be read: too much is safe."""
    try:
        match ormsgpack.unpackb(member[len(FIRST) + NAME_BYTES :]):
            case [*names] if names and all(isinstance(name, bytes) for name in names):
                return frozenset(text_of(name) for name in names)
    except ValueError:
        pass
    return frozenset(all_tags)


def kept_until_ms(server_ms: int, *, read_us: int, now_us: int) -> int:
    """Until when a renewal that is sent at `now_us` may last at most, by the server's clock, which
    showed `server_ms` before `read_us` on the same clock as `now_us`.
    """
    return server_ms + (now_us - read_us) // 1_000 + KEPT_MS
