"""tracemalloc is one for the whole process: who has it on, and that it goes off.

Who finds it on (the user's own `python -X tracemalloc`) leaves it on.  One trace at a time; calls
of functions that are measured may hold it beside that one.  tracemalloc cannot be asked who started
it: code that calls `tracemalloc.start()` while it is on for us loses it when the last hold ends.

    trace       |----------------|            frames = 4: starts anew, older holds are void
    function  |---|   |--|     |-----|        frames = 1
    on        |--------------------- |
"""

from __future__ import annotations

import os
import threading
import tracemalloc
from typing import Final

from perf_middleware.errors import TracingBusyError


class Hold:
    """One user of tracemalloc: on from `start` to `release`, which may come from any thread.

    `was_on` says that the user had it on before; `is_valid` that all traces since `start` are
    still there.
    """

    __slots__ = ("_epoch", "_generation", "_is_released", "_is_trace", "_of", "was_on")

    def __init__(self, of: Tracing, *, is_trace: bool) -> None:
        self._of = of
        self._epoch = of.epoch
        self._generation: int | None = None
        self._is_trace = is_trace
        self._is_released = False
        self.was_on = False

    @property
    def is_valid(self) -> bool:
        """Whether it has started, and nobody has thrown its traces away."""
        return (
            not self._is_released
            and self._generation == self._of.generation
            and tracemalloc.is_tracing()
        )

    def start(self, frames: int) -> None:
        """Trace from now on; nothing where it was released already."""
        of = self._of
        with of.lock:
            if not self._is_released and self._generation is None and self._epoch == of.epoch:
                self.was_on = of.start_locked(frames, anew=self._is_trace)
                self._generation = of.generation

    def release(self) -> None:
        """Let go; the last one turns it off.  Twice is once."""
        of = self._of
        with of.lock:
            if not self._is_released and self._epoch == of.epoch:
                of.let_go_locked(has_started=self._generation is not None, is_trace=self._is_trace)
            self._is_released = True


class Tracing:
    """The holds of one process; `PROCESS` is the one to use."""

    def __init__(self) -> None:
        # Reentrant: a finalizer may call a function whose memory is traced in the middle of a step.
        self.lock = threading.RLock()
        self.epoch = 0
        self.generation = 0
        self._holds = 0
        self._has_trace = False
        self._is_ours = False
        self._watches_forks = False

    def claim_for_trace(self) -> Hold:
        """The one trace of this process, not started yet.

        Raises TracingBusyError while another one has it.
        """
        with self.lock:
            if self._has_trace:
                raise TracingBusyError
            self._has_trace = True
            return Hold(self, is_trace=True)

    def hold_for_call(self) -> Hold:
        """One for a call, not started yet: beside whatever else has tracing on."""
        return Hold(self, is_trace=False)

    def start_locked(self, frames: int, *, anew: bool) -> bool:
        """Turn it on where it is off; whether it was on without us."""
        if not self._watches_forks and hasattr(os, "register_at_fork"):
            # A child that is forked now has it on too, and none of the threads that turn it off.
            os.register_at_fork(after_in_child=self._begin_anew)
            self._watches_forks = True
        if anew and self._is_ours:  # calls have it on, with one frame: their figures are void
            tracemalloc.stop()
            self._is_ours = False
            self.generation += 1
        was_on = tracemalloc.is_tracing() and not self._is_ours
        if not tracemalloc.is_tracing():
            tracemalloc.start(frames)
            self._is_ours = True
        self._holds += 1
        return was_on

    def let_go_locked(self, *, has_started: bool, is_trace: bool) -> None:
        """One user less."""
        self._holds -= has_started
        if is_trace:
            self._has_trace = False
        if not self._holds and self._is_ours:
            self._is_ours = False
            self.generation += 1
            tracemalloc.stop()

    def _begin_anew(self) -> None:
        """In a child: whoever held the lock or tracing is not here."""
        self.lock = threading.RLock()
        self.epoch += 1
        self.generation += 1
        self._holds = 0
        self._has_trace = False
        if self._is_ours:
            self._is_ours = False
            tracemalloc.stop()


PROCESS: Final = Tracing()
"""A process has one tracemalloc, so this is one as well, for all apps in it."""
