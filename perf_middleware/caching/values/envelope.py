"""A value with its terms as bytes, for a store outside of this process.

    <10: the store's own> I or P <8: fresh until> <8: ends> <8: early from> <4: took>
    <2: length of the tags> <tags> <value>

`I` is a whole number of 64 bits as text, which the store itself can add to; `P` what the packer
made.  Times are those of the store's clock, Unix time in milliseconds, 0 for never; what it took to
make is in microseconds.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import ormsgpack

from perf_middleware.caching.values.kept import Kept, Terms, early_window_us
from perf_middleware.caching.values.packing import MISS
from perf_middleware.errors import UnpackableValueError
from perf_middleware.fleet.layout import bytes_of, text_of

if TYPE_CHECKING:
    from perf_middleware.caching.values.packing import Packer

STORES_OWN: Final = 10  # version, flag and count, which the store fills in
INT64: Final = range(-(2**63), 2**63)
TAGS_BYTES_MAX: Final = 2**16 - 1
_TERMS: Final = struct.Struct(">cqqqIH")
_BEFORE: Final = b"\1-" + bytes(STORES_OWN - 2)
_NUMBER, _PACKED = b"I", b"P"
_US_PER_MS: Final = 1_000
_TOOK_US_MAX: Final = 2**32 - 1
TAGS_AT: Final = STORES_OWN + _TERMS.size - 2
"""Where the length of the tags is told."""


def sealed(packer: Packer, key: str, value: Any, terms: Terms, *, server_ms: int) -> bytes:
    """`value` and its terms, to be stored under `key` at `server_ms` of the store's clock.

    Raises UnpackableValueError, also for tags of more than TAGS_BYTES_MAX together.
    """
    is_number = type(value) is int and value in INT64
    packed = b"%d" % value if is_number else packer.pack(value, key=key)
    fresh_ms = ends_ms = early_ms = 0
    if terms.ttl_us is not None:
        fresh_ms = server_ms + terms.ttl_us // _US_PER_MS
        ends_ms = fresh_ms + terms.stale_us // _US_PER_MS
        early_ms = fresh_ms - early_window_us(terms) // _US_PER_MS
    tags = ormsgpack.packb([bytes_of(tag) for tag in terms.tags]) if terms.tags else b""
    if len(tags) > TAGS_BYTES_MAX:
        raise UnpackableValueError(type(value).__name__, f"its tags take {len(tags)} bytes")
    kind = _NUMBER if is_number else _PACKED
    took_us = min(terms.took_us, _TOOK_US_MAX)
    head = _TERMS.pack(kind, fresh_ms, ends_ms, early_ms, took_us, len(tags))
    return b"".join((_BEFORE, head, tags, packed))


def opened(packer: Packer, key: str, content: bytes, *, now_us: int, server_ms: int) -> Kept | None:
    """The value under `key`, at `now_us` here and `server_ms` of the store's clock.

    It is nobody else's.  None for bytes that are no value, and for one that is over.
    """
    try:
        kind, fresh_ms, ends_ms, early_ms, took_us, tags_bytes = _TERMS.unpack_from(
            content, STORES_OWN
        )
        start = STORES_OWN + _TERMS.size
        stop = start + tags_bytes
        tags = tuple(map(text_of, ormsgpack.unpackb(content[start:stop]))) if tags_bytes else ()
        if kind == _NUMBER:
            value: Any = int(content[stop:])
        elif kind == _PACKED:
            value = packer.unpack(content[stop:], key=key)
        else:
            return None
    # Bytes of any kind: whatever does not fit is no value of ours.
    except (ValueError, TypeError, AttributeError, struct.error):
        return None
    if value is MISS:
        return None
    if fresh_ms and server_ms >= max(fresh_ms, ends_ms):
        return None
    terms = Terms(ttl_us=None, tags=tags, took_us=took_us, copy=False)
    kept = Kept(value, terms, now_us=now_us)
    if fresh_ms:
        kept.fresh_until_us = now_us + (fresh_ms - server_ms) * _US_PER_MS
        kept.early_from_us = now_us + (early_ms - server_ms) * _US_PER_MS
        kept.ends_us = now_us + (ends_ms - server_ms) * _US_PER_MS
    return kept
