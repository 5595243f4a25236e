"""A figure that is costly to read, kept for as long as its cost demands."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from perf_middleware.memory_watch.probes.files import NoDescriptorLeftError

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.clock import Clock

T = TypeVar("T")

REST: Final = 1000  # times what a reading took: no figure takes more than 0.1 % of the time


class Kept(Generic[T]):
    """Reads at most every `every_us`, and rests `REST` times as long as a reading took.

    One thread reads at a time; another one gets what is kept, None before the first reading.
    """

    def __init__(self, read: Callable[[], T | None], *, every_us: int, clock: Clock) -> None:
        self._read = read
        self._every_us = every_us
        self._clock = clock
        self._reading = threading.Lock()
        self._value: T | None = None
        self._due_us: int | None = None
        self._rest_us = 0
        self.took_us = 0

    def newest(self) -> T | None:
        """The figure, read now if that is due; for a thread that may wait."""
        return self._value_at(0)

    def kept(self) -> T | None:
        """The figure as it is kept, read now only where nobody did so for twice the time."""
        return self._value_at(self._rest_us)

    def _value_at(self, patience_us: int) -> T | None:
        now_us = self._clock()
        if self._due_us is not None and now_us < self._due_us + patience_us:
            return self._value
        if not self._reading.acquire(blocking=False):
            return self._value
        try:
            self._value = self._read()
        except NoDescriptorLeftError:
            pass  # what was read last is the best guess
        finally:
            done_us = self._clock()
            self.took_us = max(0, done_us - now_us)
            self._rest_us = max(self._every_us, self.took_us * REST)
            self._due_us = done_us + self._rest_us
            self._reading.release()
        return self._value
