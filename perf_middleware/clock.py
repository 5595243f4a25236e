"""The clock as an argument: whole microseconds, monotonic, so that policies stay pure."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], int]
"""Microseconds since an arbitrary start, never going back."""


def monotonic_us() -> int:
    """Now, in whole microseconds of the monotonic clock."""
    return time.perf_counter_ns() // 1000
