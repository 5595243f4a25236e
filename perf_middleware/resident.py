"""The memory of this process that is in RAM, read as cheaply as the platform allows.

On Linux 6 us: one line of /proc (proc(5), statm).  Elsewhere psutil asks.
"""

from __future__ import annotations

import os

UNKNOWN = -1
_STATM = "/proc/self/statm"
_HAS_STATM = os.path.exists(_STATM)  # noqa: PTH110 - no Path needed for a yes or no
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if _HAS_STATM else 0


def resident_bytes() -> int:
    """Memory of this process that is in RAM now, bytes; UNKNOWN where nothing tells."""
    if not _HAS_STATM:
        return asked_resident_bytes()
    try:
        # Opened anew each time: a descriptor kept over a fork would tell of the parent.
        descriptor = os.open(_STATM, os.O_RDONLY)
        try:
            return int(os.read(descriptor, 128).split()[1]) * _PAGE_BYTES
        finally:
            os.close(descriptor)
    except OSError:  # out of descriptors, say: the timed code must not feel it
        return UNKNOWN


def asked_resident_bytes() -> int:
    """The same as psutil tells it, where there is no /proc or it is hidden."""
    try:
        import psutil

        return int(psutil.Process().memory_info().rss)
    except Exception:  # noqa: BLE001 - psutil lets parse errors of unusual systems through
        return UNKNOWN
