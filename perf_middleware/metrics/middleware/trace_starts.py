"""The `traceparent` values of traces that start here, made in batches.

One out of a batch costs a third of one made by itself: the system is asked for random bytes once,
and what makes the values stays in the processor's caches while it runs.
"""

from __future__ import annotations

import os
from itertools import chain, repeat
from struct import Struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH: Final = 64
_IDS_BYTES: Final = 24  # a trace id and a span id
_IDS: Final = Struct("32s16s")  # their hex digits
_ZERO_ID: Final = b"0" * 16


def traceparents_of(random: bytes) -> list[bytes]:
    """One traceparent for every 24 bytes; an id of zeros is invalid (§3.2.2.3, §3.2.2.4)."""
    digits = random.hex().encode()
    if _ZERO_ID in digits:
        digits = digits.replace(_ZERO_ID, b"1" * len(_ZERO_ID))
    return [b"00-%b-%b-02" % ids for ids in _IDS.iter_unpack(digits)]


# Iterators of C and not a generator: no frame of ours, and threads may draw at the same time.
_batches = map(traceparents_of, map(os.urandom, repeat(BATCH * _IDS_BYTES)))
trace_start: Final[Callable[[], bytes]] = chain.from_iterable(_batches).__next__
"""Draws a traceparent that no request came with: not sampled, its ids random."""


def _use_up_batch() -> None:
    """In a forked process: what the parent has ready would be given out twice."""
    for _ in range(BATCH):
        trace_start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_use_up_batch)
