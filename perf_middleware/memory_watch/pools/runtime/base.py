"""What both pools are made of: their options, their state and steps, and what they tell."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from perf_middleware.errors import PoolTimeoutError
from perf_middleware.memory_watch.pools.figures import REASONS, PoolReading, pool_families
from perf_middleware.memory_watch.pools.options import US_PER_S, PoolOptions, whole_us
from perf_middleware.memory_watch.pools.state import PoolState
from perf_middleware.memory_watch.pools.steps import CLOSE, CREATE, RESET, SlotSteps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import CodeType

    from perf_middleware.clock import Clock
    from perf_middleware.families import Family

logger = logging.getLogger("perf_middleware.memory_watch")

T = TypeVar("T")

HOLDERS_MAX: Final = 20
"""So many of those who hold an object are named in `status()`, the longest first."""
UNTOLD_MAX: Final = 20
_HERE: Final = str(Path(__file__).parent)


class Pool(Generic[T]):
    """The part of a pool that is the same with threads and with async code."""

    def __init__(
        self,
        functions: dict[str, Callable[..., Any] | None],
        options: PoolOptions,
        *,
        names_holders: bool,
        drain_s: float,
        clock: Clock,
    ) -> None:
        self.name = options.name
        self._options = options
        self._clock = clock
        self._drain_s = drain_s
        self._names_holders = names_holders
        self._functions = {step: each for step, each in functions.items() if each is not None}
        self._state: PoolState[T] = PoolState(options)
        self._steps: SlotSteps[T] = SlotSteps(
            self._state,
            name=options.name,
            resets=RESET in self._functions,
            closes=CLOSE in self._functions,
            clock=clock,
            on_failure=self._note_failure,
        )
        self._resets = RESET in self._functions
        self._pid = os.getpid()
        self._of_parent: list[Any] = []
        self._untold: deque[tuple[str, Exception]] = deque(maxlen=UNTOLD_MAX)
        self._told: set[str] = set()

    def reading(self) -> PoolReading:
        """The figures of this moment, for `pool_families`."""
        state = self._state
        return PoolReading(
            name=self.name,
            size_max=self._options.size_max,
            idle=state.idle,
            lent=state.lent,
            working=max(0, state.size - state.idle - state.lent),
            waiting=state.waiting,
            counts=state.counts,
        )

    def families(self) -> Iterable[Family]:
        """This pool's families; `pool_families` makes them for several pools at once."""
        return pool_families([self.reading()])

    def reset_counts(self) -> None:
        """Every counter back to zero."""
        self._state.counts.reset()

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture: sizes, counts, and who has held an object for how long."""
        reading, counts, now_us = self.reading(), self._state.counts, self._clock()
        lent = sorted(self._state.lent_slots(), key=lambda slot: slot.since_us)
        return {
            "name": self.name,
            "is_open": self._state.is_open,
            "size_max": reading.size_max,
            "idle": reading.idle,
            "lent": reading.lent,
            "working": reading.working,
            "waiting": reading.waiting,
            "lends": counts.lends,
            "timeouts": counts.timeouts,
            "made": counts.made,
            "removed": dict(zip(REASONS, counts.removed, strict=True)),
            "failures": dict(counts.failures),
            "holders": [
                {"held_s": (now_us - slot.since_us) / US_PER_S, "by": told_holder(slot.holder)}
                for slot in lent[:HOLDERS_MAX]
            ],
            "lost_by": [told_holder(holder) for holder in self._state.lost_holders],
        }

    # --- for the pools --------------------------------------------------------------------------

    def _until_us(self, timeout_s: float | None, now_us: int) -> int | None:
        if timeout_s is None:
            wait_us = self._options.wait_us
        else:
            wait_us = None if timeout_s == math.inf else whole_us(timeout_s)
        return None if wait_us is None else now_us + wait_us

    def _timed_out(self, doing: str, us: int) -> PoolTimeoutError:
        if doing not in (RESET, CLOSE):
            self._state.counts.timeouts += 1
        return PoolTimeoutError(self.name, doing, max(0, us) / US_PER_S)

    def _limit_us(self, step: str, until_us: int | None) -> int:
        """How long a call may take.  Raises PoolTimeoutError where nothing is left to create in."""
        limit_us = self._options.step_us
        if until_us is None:
            return limit_us
        left_us = until_us - self._clock()
        if left_us <= 0 and step == CREATE:
            raise self._timed_out(step, 0)
        return max(0, min(limit_us, left_us))

    def _note_failure(self, step: str, error: Exception) -> None:
        self._untold.append((step, error))

    def _tell(self) -> None:
        """Log what failed and nobody else hears of: the first time for each step."""
        while self._untold:
            step, error = self._untold.popleft()
            if step not in self._told:
                self._told.add(step)
                logger.warning(
                    "%s: %s failed, its object is gone and the pool goes on; further ones are "
                    "counted only",
                    self.name,
                    step,
                    exc_info=error,
                )

    def _told_still_lent(self) -> None:
        logger.warning(
            "%s is closed while %d of its objects are out; they are closed when they come back: %s",
            self.name,
            self._state.size,
            self.status()["holders"],
        )

    def _begin_in_child(self) -> None:
        """After a fork: connections belong to the parent, and are not even closed here."""
        self._pid = os.getpid()
        for slot in self._state.forget():
            thing = slot.thing if slot.weak is None or slot.thing is not None else slot.weak()
            self._of_parent.append(thing)

    def _is_of_parent(self, thing: T) -> bool:
        return any(thing is each for each in self._of_parent)


def caller() -> tuple[CodeType, int]:
    """Who called the pool: the code, and its line."""
    frame = sys._getframe(2)  # noqa: SLF001 - traceback.extract_stack reads source files for it
    while frame.f_code.co_filename.startswith(_HERE) and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code, frame.f_lineno


def told_holder(holder: tuple[CodeType, int] | None) -> str | None:
    """`app.py:12 in fetch`; None where holders are not named."""
    if holder is None:
        return None
    code, line = holder
    return f"{code.co_filename}:{line} in {code.co_qualname}"
