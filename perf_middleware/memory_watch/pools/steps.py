"""What is done with one slot, call by call; the pool around it makes the calls and waits for them.

    obtaining     check? -> (close) -> create?      before an object is lent
    giving_back   reset? -> idle, or close          when it comes back
    discarding    close

A generator yields the name of a call and its arguments and is sent what came of it, or has the
exception thrown in that came out of it, the task's cancellation too: so what happens to the slot is
decided here, once for both pools, without waiting.  However a call ends the slot is idle, lent,
passed on or gone afterwards, and no object is out of sight without having been closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

from perf_middleware.errors import PoolClosedError
from perf_middleware.memory_watch.pools.figures import (
    BROKEN,
    FAILED_CHECK,
    FAILED_RESET,
    INTERRUPTED,
    POOL_CLOSED,
)
from perf_middleware.memory_watch.pools.slots import CHECK, REPLACE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from perf_middleware.clock import Clock
    from perf_middleware.memory_watch.pools.slots import Slot
    from perf_middleware.memory_watch.pools.state import PoolState

T = TypeVar("T")
R = TypeVar("R")

CREATE: Final = "create"
CHECKING: Final = "check"
RESET: Final = "reset"
CLOSE: Final = "close"

Call: TypeAlias = "tuple[str, tuple[Any, ...]]"
Steps: TypeAlias = "Generator[Call, Any, R]"


class SlotSteps(Generic[T]):
    """The steps over one pool's state.

    `on_failure(step, error)` hears of a reset or a close that failed: nobody else does.
    """

    __slots__ = ("_clock", "_name", "_on_failure", "_state", "closes", "resets")

    def __init__(
        self,
        state: PoolState[T],
        *,
        name: str,
        resets: bool,
        closes: bool,
        clock: Clock,
        on_failure: Callable[[str, Exception], object],
    ) -> None:
        self._state = state
        self._name = name
        self._clock = clock
        self._on_failure = on_failure
        self.resets = resets
        self.closes = closes

    def obtaining(self, slot: Slot[T]) -> Steps[T]:
        """The object of `slot`, lent; it is checked, replaced or made before, as `todo` says.

        One that was just made is not checked, so there is one check and one creation at most.
        Raises what create raises, and PoolClosedError where the pool closes meanwhile.
        """
        if slot.todo == CHECK and not (yield from self._passes(slot)):
            slot.todo = REPLACE
        if slot.todo == REPLACE:
            try:
                yield from self._closing(slot)
            except BaseException:
                self._state.drop(slot, self._clock())
                raise
        if slot.thing is None:
            yield from self._filling(slot)
        if not self._state.is_open:  # it was closed meanwhile
            slot.why = POOL_CLOSED
            yield from self.discarding(slot)
            raise PoolClosedError(self._name)
        return self._state.claim(slot, self._clock())

    def making(self, slot: Slot[T]) -> Steps[None]:
        """An object for an empty slot, that nobody has asked for yet."""
        yield from self._filling(slot)
        if not self._state.put_back(slot, self._clock()):
            yield from self.discarding(slot)

    def giving_back(self, slot: Slot[T], *, is_broken: bool) -> Steps[None]:
        """What came back is reset and free again, or closed; and one that is cold is closed."""
        state = self._state
        if is_broken:
            slot.why = BROKEN
            yield from self.discarding(slot)
            return
        if state.is_worn(slot, self._clock()):
            yield from self.discarding(slot)
            return
        if self.resets:
            try:
                yield RESET, (slot.thing,)
            except BaseException as error:
                slot.why = self._failed(RESET, error, otherwise=FAILED_RESET)
                yield from self.discarding(slot)
                if not isinstance(error, Exception):
                    raise
                return
        if not state.put_back(slot, self._clock()):
            yield from self.discarding(slot)
            return
        yield from self.closing_cold()

    def closing_cold(self) -> Steps[None]:
        """One that was idle for too long, if there is one."""
        cold = self._state.cold(self._clock())
        if cold is not None:
            yield from self.discarding(cold)

    def discarding(self, slot: Slot[T]) -> Steps[None]:
        """Its object is closed and the slot given up, also where closing fails."""
        try:
            yield from self._closing(slot)
        finally:
            self._state.drop(slot, self._clock())

    # --- parts of them --------------------------------------------------------------------------

    def _passes(self, slot: Slot[T]) -> Steps[bool]:
        """Whether its object is fit.  An interrupted check leaves it in no known state: closed."""
        try:
            answer = yield CHECKING, (slot.thing,)
        except BaseException as error:
            slot.why = self._failed(CHECKING, error, otherwise=FAILED_CHECK)
            if isinstance(error, Exception):
                return False
            yield from self.discarding(slot)
            raise
        slot.is_suspect = False
        if answer is None or answer:
            return True
        slot.why = FAILED_CHECK
        self._state.counts.failures[CHECKING] += 1
        return False

    def _filling(self, slot: Slot[T]) -> Steps[None]:
        """Make its object; where that fails the slot is given up, and the next in line tries."""
        if not self._state.is_open:
            self._state.drop(slot, self._clock())
            raise PoolClosedError(self._name)
        try:
            thing = yield CREATE, ()
            self._state.fill(slot, thing, self._clock())
        except BaseException as error:
            self._failed(CREATE, error, otherwise=BROKEN)
            self._state.drop(slot, self._clock())
            raise

    def _closing(self, slot: Slot[T]) -> Steps[None]:
        thing = self._state.empty(slot)
        if self.closes:
            try:
                yield CLOSE, (thing,)
            except Exception as error:  # noqa: BLE001 - somebody else's object: told, and over
                self._failed(CLOSE, error, otherwise=BROKEN)

    def _failed(self, step: str, error: BaseException, *, otherwise: int) -> int:
        """Count it; returns the reason for which its object goes."""
        if not isinstance(error, Exception):
            return INTERRUPTED
        self._state.counts.failures[step] += 1
        if step in (RESET, CLOSE):
            self._on_failure(step, error)
        return otherwise
