"""Where the due times of buckets are kept, each behind one atomic step: `take`.

MemoryQuotas   this process's, synchronous
SharedQuotas   in Redis, for all processes; raises while it is away
FleetQuotas    the shared ones, and what holds instead while Redis is away; never raises for it
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

KEY_BYTES_MAX: Final = 128
_DIGEST_BYTES: Final = 24


def bounded(key: bytes) -> bytes:
    """`key`, or a digest of one that has more than KEY_BYTES_MAX bytes: clients choose some."""
    if len(key) <= KEY_BYTES_MAX:
        return key
    return blake2b(key, digest_size=_DIGEST_BYTES).digest()
