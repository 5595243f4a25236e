"""A value with its terms as bytes, for a store outside of this process.

A whole number that was set by hand is written in digits, so that the store itself can count it up;
no other bytes begin so (packing.VERSION does not).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perf_middleware.caching.values.kept import Kept, Terms
from perf_middleware.caching.values.packing import MISS

if TYPE_CHECKING:
    from perf_middleware.caching.values.packing import Packer

_DIGITS: Final = frozenset(b"-0123456789")
_COUNTED_BITS: Final = 63  # what Redis counts in


def sealed(packer: Packer, key: str, value: Any, terms: Terms) -> bytes:
    """`value` and its terms, to be stored under `key` for its ttl and stale time.

    Raises UnpackableValueError.
    """
    by_hand = not terms.took_us and not terms.stale_us
    if type(value) is int and by_hand and value.bit_length() <= _COUNTED_BITS:
        return b"%d" % value
    tags = list(terms.tags)
    return packer.pack([terms.stale_us, terms.took_us, terms.early, tags, value], key=key)


def opened(
    packer: Packer, key: str, stored: bytes, *, left_us: int | None
) -> tuple[Any, Terms] | None:
    """The value under `key` and its terms from now on; None for bytes that are no value.

    `left_us` is what is left of its ttl and stale time, None where it has no end; in its stale time
    its ttl is 0 or less.
    """
    if stored[:1] and stored[0] in _DIGITS:
        try:
            return int(stored), Terms(ttl_us=left_us)
        except ValueError:
            return None
    found = packer.unpack(stored, key=key)
    if found is MISS or type(found) is not list or len(found) != 5:
        return None
    stale_us, took_us, early, tags, value = found
    if not (
        type(stale_us) is type(took_us) is int
        and type(early) is float
        and type(tags) is list
        and all(type(tag) is str for tag in tags)
    ):
        return None
    ttl_us = None if left_us is None else left_us - stale_us
    return value, Terms(
        ttl_us=ttl_us, stale_us=stale_us, tags=tuple(tags), took_us=took_us, early=early
    )


def kept_of(value: Any, terms: Terms, *, now_us: int) -> Kept:
    """`value`, which was just read from bytes and is nobody else's, for one caller."""
    own = Terms(
        ttl_us=terms.ttl_us,
        stale_us=terms.stale_us,
        tags=terms.tags,
        took_us=terms.took_us,
        early=terms.early,
        copy=False,
    )
    return Kept(value, own, now_us=now_us)
