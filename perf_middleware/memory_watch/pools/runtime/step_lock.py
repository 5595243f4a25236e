"""A lock for steps that a finalizer or a signal handler may interrupt, in the thread that has it.

At a plain lock it would wait for itself for ever, at a reentrant one walk into a half-done step.
"""

from __future__ import annotations

from threading import RLock


class StepLock:
    """Held for one step at a time; says no where this thread is in the middle of one already."""

    __slots__ = ("_is_in_step", "_lock")

    def __init__(self) -> None:
        self._lock = RLock()
        self._is_in_step = False  # of whoever has the lock

    def begin(self, *, waits: bool = True) -> bool:
        """Begin a step; False where this thread has one, or `waits` is false and another has."""
        # What comes in between these lines makes a whole step of its own, and is over then.
        if not self._lock.acquire(blocking=waits):
            return False
        if self._is_in_step:
            self._lock.release()
            return False
        self._is_in_step = True
        return True

    def end(self) -> None:
        """The step is over."""
        self._is_in_step = False
        self._lock.release()

    def is_own(self) -> bool:
        """Whether this thread is in the middle of a step."""
        if not self._is_in_step or not self._lock.acquire(blocking=False):
            return False
        try:
            return self._is_in_step
        finally:
            self._lock.release()
