"""One signal of the overload level, and how it is read."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.limits.overload.level import Signal

logger = logging.getLogger("perf_middleware.limits")


class WatchedSignal:
    """`read()` gives its value now, or None; where it raises, that is None and counted."""

    __slots__ = ("_is_failing", "_read", "failures", "signal")

    def __init__(self, signal: Signal, read: Callable[[], float | None]) -> None:
        self.signal = signal
        self.failures = 0
        self._read = read
        self._is_failing = False

    def sample(self) -> float | None:
        """The value now; a failure is logged once until the signal is back."""
        try:
            value = self._read()
            sample = None if value is None else float(value)
        except Exception as exc:  # noqa: BLE001 - an observer that fails counts as nothing
            self.failures += 1
            if not self._is_failing:
                self._is_failing = True
                logger.warning(
                    "the overload signal %s cannot be read, going on without it: %s: %s",
                    self.signal.name, type(exc).__name__, exc,
                )  # fmt: skip
            return None
        self._is_failing = False
        return sample
