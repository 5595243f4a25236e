"""Which object of a pool goes to whom: slots, and the line of those who wait.

                     take                     claim
    (none) ------------------> in work -------------------> lent
       ^                       ^  |  ^                        |
       |         drop          |  |  '------ give_back -------'
       '-----------------------|--'
                    take, cold |  | put_back
                               |  v
                               idle

A slot is the right to one object; whoever has one in work makes, checks, resets or closes its
object, and nobody else sees it meanwhile.  What comes back goes to whoever waits longest at once,
without being idle in between, so no newcomer can take it before.  These hold after each call:

- `size` is the number of slots idle, in work and lent, and never above `size_max`;
- somebody waits only while `size` is `size_max` and nothing is idle;
- a ticket that was granted a slot uses it, or `leave` passes it on: none is lost with its waiter.

A lent object is held weakly, where its type allows that: one that is forgotten without being given
back ends in `lost`, and `reap` takes its slot back.  Idle ones are taken newest first: few stay
warm, and what is left over gets cold and goes.

Nothing here waits, locks or looks at a clock; the pools around it do.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from weakref import ref

from perf_middleware.errors import PoolClosedError, PoolLineFullError
from perf_middleware.memory_watch.pools.figures import (
    AGED,
    IDLE_FOR_LONG,
    LOST,
    POOL_CLOSED,
    USED_UP,
    PoolCounts,
)
from perf_middleware.memory_watch.pools.slots import (
    CHECK,
    GONE,
    GRANTED,
    IDLE,
    LEFT,
    LENT,
    MAKE,
    READY,
    REPLACE,
    TURNED_AWAY,
    WAITING,
    WORKING,
    Slot,
    Ticket,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perf_middleware.memory_watch.pools.options import PoolOptions

T = TypeVar("T")

LOST_HOLDERS_MAX: Final = 5
"""Of the last objects that were lost it is kept who had them."""


class PoolState(Generic[T]):
    """All slots of one pool.  Not open at first.

    `on_lost` hears, at any moment and in any thread, that `reap` has something to do; `on_empty`
    that the last slot is gone.
    """

    __slots__ = (
        "_idle",
        "_line",
        "_members",
        "_options",
        "counts",
        "is_open",
        "lent",
        "lost",
        "lost_holders",
        "on_empty",
        "on_lost",
        "size",
    )

    def __init__(self, options: PoolOptions) -> None:
        self._options = options
        self._idle: deque[Slot[T]] = deque()  # the coldest first
        self._line: OrderedDict[Ticket[T], None] = OrderedDict()
        self._members: dict[int, Slot[T]] = {}
        self.counts = PoolCounts()
        self.is_open = False
        self.size = 0
        self.lent = 0
        self.lost: deque[Slot[T]] = deque()
        self.lost_holders: deque[Any] = deque(maxlen=LOST_HOLDERS_MAX)
        self.on_lost: Callable[[], object] = nothing
        self.on_empty: Callable[[], object] = nothing

    @property
    def idle(self) -> int:
        """How many objects nobody uses."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._line)

    # --- who wants one --------------------------------------------------------------------------

    def take(self, now_us: int) -> Slot[T] | None:
        """A slot for one who comes now, in work: do what its `todo` says; None: `join` the line.

        Raises PoolClosedError.
        """
        if not self.is_open:
            raise PoolClosedError(self._options.name)
        if self._idle:
            slot = self._idle.pop()
            slot.state = WORKING
            slot.todo = self._todo(slot, now_us)
            return slot
        return self.new_slot()

    def _todo(self, slot: Slot[T], now_us: int) -> int:
        """What has to be done first with an object that was idle."""
        options = self._options
        if options.age_us_max is not None and now_us - slot.made_us >= options.age_us_max:
            slot.why = AGED
            return REPLACE
        idle_us = now_us - slot.since_us
        if options.idle_us_max is not None and idle_us >= options.idle_us_max:
            slot.why = IDLE_FOR_LONG
            return REPLACE
        after_us = options.check_after_idle_us
        if after_us is not None and (idle_us >= after_us or slot.is_suspect):
            return CHECK
        return READY

    def new_slot(self) -> Slot[T] | None:
        """An empty one, in work; None where there are `size_max`."""
        if self.size >= self._options.size_max and not self._reap_some():
            return None
        self.size += 1
        return Slot()

    def claim(self, slot: Slot[T], now_us: int) -> T:
        """The object of `slot`: lent from now on."""
        thing = slot.thing
        if slot.weak is not None:
            slot.thing = None
        slot.state = LENT
        slot.since_us = now_us
        slot.uses += 1
        self.lent += 1
        self.counts.lends += 1
        return thing  # type: ignore[return-value]

    def fill(self, slot: Slot[T], thing: T, now_us: int) -> None:
        """`thing` was made for `slot`, which stays in work.

        Raises TypeError where it is None, ValueError where the pool has this object already.
        """
        if thing is None:
            raise TypeError(f"create of {self._options.name} returned None")
        key = id(thing)
        other = self._members.get(key)
        if other is not None and self._is_of(other, thing):
            raise ValueError(f"create of {self._options.name} returned an object it has already")
        slot.thing = thing
        slot.key = key
        slot.made_us = now_us
        slot.uses = 0
        slot.is_suspect = False
        try:
            slot.weak = ref(thing, partial(self._note_lost, slot))
        except TypeError:  # a bytearray, a list: held for good while it is lent
            slot.weak = None
        self._members[key] = slot
        self.counts.made += 1

    # --- who waits ------------------------------------------------------------------------------

    def join(self, wake: Callable[[], object], now_us: int) -> Ticket[T]:
        """A place at the end of the line, after `take` gave nothing.

        Raises PoolLineFullError.
        """
        if len(self._line) >= self._options.waiting_max:
            self.counts.refused += 1
            raise PoolLineFullError(self._options.name, self._options.waiting_max)
        ticket: Ticket[T] = Ticket(wake, now_us)
        self._line[ticket] = None
        self.counts.waits += 1
        return ticket

    def leave(self, ticket: Ticket[T], now_us: int) -> Slot[T] | None:
        """It waits no more, or cannot use what it was granted: the next one gets that.

        Returns a slot whose object has to be closed, if any.
        """
        if ticket.state == WAITING:
            del self._line[ticket]
            ticket.state = LEFT
            self.counts.wait_us += now_us - ticket.since_us
            return None
        slot, ticket.slot = ticket.slot, None
        return None if slot is None else self.pass_on(slot, now_us)

    def pass_on(self, slot: Slot[T], now_us: int) -> Slot[T] | None:
        """`slot` was taken and nothing was done with it.  Returns it where it has to be closed."""
        if slot.todo == MAKE:
            self.drop(slot, now_us)
            return None
        if slot.todo == REPLACE or self.is_worn(slot, now_us):
            return slot
        self._free(slot, now_us)  # nobody used it: a check that was due still is
        return None

    def _grant(self, slot: Slot[T], now_us: int) -> None:
        ticket, _ = self._line.popitem(last=False)
        ticket.state = GRANTED
        ticket.slot = slot
        self.counts.wait_us += now_us - ticket.since_us
        ticket.wake()

    # --- what comes back ------------------------------------------------------------------------

    def give_back(self, thing: T) -> Slot[T]:
        """The slot of a lent object, in work now.

        Raises ValueError where this pool has not lent it: never, or it was given back already.
        """
        slot = self._members.get(id(thing))
        if slot is None or slot.state != LENT or not self._is_of(slot, thing):
            raise ValueError(f"{self._options.name} has not lent this {type(thing).__name__}")
        slot.thing = thing
        slot.state = WORKING
        slot.holder = None
        self.lent -= 1
        return slot

    def is_worn(self, slot: Slot[T], now_us: int) -> bool:
        """Whether its object is to be closed instead of used again; `slot.why` says why."""
        options = self._options
        if not self.is_open:
            slot.why = POOL_CLOSED
        elif options.uses_max is not None and slot.uses >= options.uses_max:
            slot.why = USED_UP
        elif options.age_us_max is not None and now_us - slot.made_us >= options.age_us_max:
            slot.why = AGED
        else:
            return False
        return True

    def put_back(self, slot: Slot[T], now_us: int) -> bool:
        """Its object is free: for the first in line, else idle.  False: it is to be closed."""
        if self.is_worn(slot, now_us):
            return False
        slot.since_us = now_us
        self._free(slot, now_us)
        return True

    def _free(self, slot: Slot[T], now_us: int) -> None:
        if self._line:
            slot.todo = self._todo(slot, now_us)
            self._grant(slot, now_us)
        else:
            slot.state = IDLE
            self._idle.append(slot)

    def empty(self, slot: Slot[T]) -> T:
        """Its object, which the slot has no more: it is to be closed.  The slot stays in work."""
        thing = slot.thing
        slot.thing = slot.weak = None
        self._forget_member(slot)
        self.counts.removed[slot.why] += 1
        slot.todo = MAKE
        return thing  # type: ignore[return-value]

    def drop(self, slot: Slot[T], now_us: int) -> None:
        """An empty slot is given up: the first in line may make an object instead."""
        slot.state = GONE
        self.size -= 1
        if self._line:  # there is none while the pool is closed
            self.size += 1
            self._grant(Slot(), now_us)
        elif not self.size:
            self.on_empty()

    # --- cold, surplus, lost --------------------------------------------------------------------

    def cold(self, now_us: int) -> Slot[T] | None:
        """One, in work, that was idle for too long or is too old, down to `size_min`."""
        options = self._options
        if not self._idle or self.size <= options.size_min:
            return None
        slot = self._idle[0]
        if self._todo(slot, now_us) != REPLACE:
            return None
        return self.coldest(slot.why)

    def coldest(self, why: int) -> Slot[T] | None:
        """The one that has been idle longest, in work, to be closed; None where none is idle."""
        if not self._idle:
            return None
        slot = self._idle.popleft()
        slot.state = WORKING
        slot.why = why
        return slot

    def surplus(self, share: float) -> int:
        """How many idle ones are `share` of them, rounded up."""
        return min(ceil(share * len(self._idle)), len(self._idle))

    def _note_lost(self, slot: Slot[T], weak: ref[Any]) -> None:
        """Called by the interpreter, between any two instructions of any thread."""
        if slot.state == LENT and slot.weak is weak:
            self.lost.append(slot)
            self.on_lost()

    def reap(self, now_us: int) -> int:
        """Take back the slots whose objects were forgotten; returns how many."""
        count = 0
        while self.lost:
            slot = self.lost.popleft()
            self.lent -= 1
            slot.weak = None
            self._forget_member(slot)
            self.lost_holders.append(slot.holder)
            self.counts.removed[LOST] += 1
            self.drop(slot, now_us)
            count += 1
        return count

    def _reap_some(self) -> bool:
        return bool(self.lost) and not self._line and self.reap(0) > 0

    # --- the whole ------------------------------------------------------------------------------

    def close(self, now_us: int) -> None:
        """Nothing is lent any more, and whoever waits is turned away; idle ones stay until taken
        by `coldest`.
        """
        self.is_open = False
        line, self._line = self._line, OrderedDict()
        for ticket in line:
            ticket.state = TURNED_AWAY
            self.counts.wait_us += now_us - ticket.since_us
            ticket.wake()

    def forget(self) -> list[Slot[T]]:
        """Begin anew in a process that was forked: what was there belongs to its parent.

        Returns the slots with what is theirs, to be kept and never touched.
        """
        slots = list(self._members.values())
        for slot in slots:
            slot.state = GONE
        self._members.clear()
        self._idle.clear()
        self._line.clear()
        self.lost.clear()
        self.size = self.lent = 0
        return slots

    def lent_slots(self) -> Iterator[Slot[T]]:
        """Those whose objects are out."""
        return (slot for slot in list(self._members.values()) if slot.state == LENT)

    def _forget_member(self, slot: Slot[T]) -> None:
        # A lost object's address may already be that of another one.
        if self._members.get(slot.key) is slot:
            del self._members[slot.key]

    @staticmethod
    def _is_of(slot: Slot[T], thing: T) -> bool:
        return (slot.thing if slot.weak is None else slot.weak()) is thing


def nothing() -> None:
    """Nobody listens."""
