"""What has expired, found without looking at what has not: a hierarchical timing wheel.

A deadline is a number of ticks, read as digits to the base of 64.  It waits in the slot named by
the highest digit in which it differs from the wheel's own tick, and by that digit:

    tick       2 . 17 . 40
    deadline   2 . 17 . 55   level 0, slot 55: due within the minute
               2 . 20 .  3   level 1, slot 20: looked at again when the tick reaches 2 . 20 .  0
               3 .  0 .  9   level 2, slot  3:                                      3 .  0 .  0

Where the wheel turns, all below the digit that changes is due, the slot it reaches is dealt to the
levels below, and everything else stays where it is.  An entry moves once a level in its life, to
schedule or cancel takes one step, and nothing is kept of a deadline that was replaced.

Source: Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", SOSP 1987, scheme 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

K = TypeVar("K", bound="Hashable")

TICK_BITS = 20  # a tick is 2**20 us, about a second
TICK_US = 1 << TICK_BITS
_DIGIT_BITS = 6
_SLOTS = 1 << _DIGIT_BITS


class Expiry(Generic[K]):
    """Keys and their deadlines, in whole microseconds of the caller's clock.

    A key is due at the earliest when its deadline is over, and up to TICK_US later: who must know
    exactly compares the deadline itself.
    """

    __slots__ = ("_dealt", "_last", "_last_tick", "_slot_of", "_slots", "_tick", "next_us")

    def __init__(self, *, now_us: int) -> None:
        self._tick = now_us >> TICK_BITS
        # (level, digit) as one number -> the ticks of the keys waiting there
        self._slots: dict[int, dict[K, int]] = {}
        self._slot_of: dict[K, dict[K, int]] = {}
        self._dealt: dict[K, int] = {}  # the slot that is being dealt to the levels below
        # The slot that was asked for last, of this tick, as long as the wheel stands still: what is
        # stored within one second mostly has one lifetime.
        self._last: dict[K, int] = {}
        self._last_tick: int | None = None  # no number says none: a deadline may be any
        self.next_us = 0  # before it `due` finds nothing to do

    def __len__(self) -> int:
        return len(self._slot_of)

    def __contains__(self, key: object) -> bool:
        return key in self._slot_of

    def schedule(self, key: K, deadline_us: int) -> None:
        """Let `key` be due after `deadline_us`, instead of what was scheduled for it before."""
        slot_of = self._slot_of
        before = slot_of.get(key)
        tick = deadline_us >> TICK_BITS
        if tick == self._last_tick:
            slot = self._last
        else:
            if tick < self._tick:
                tick = self._tick
            slot = self._last = self._slot(tick)
            self._last_tick = tick
        if before is not slot:
            if before is not None:
                del before[key]
            slot_of[key] = slot
        slot[key] = tick

    def cancel(self, key: K) -> None:
        """Forget `key`; nothing where it is not known."""
        slot = self._slot_of.pop(key, None)
        if slot is not None:
            del slot[key]

    def clear(self) -> None:
        """Forget all keys."""
        self._slots.clear()
        self._slot_of.clear()
        self._dealt = {}
        self._last = {}
        self._last_tick = None

    def due(self, now_us: int, limit: int) -> list[K]:
        """Take out keys whose deadline is over at `now_us`, those of a call in no order.

        `limit` bounds the keys and the work: where it is reached the next call goes on.  A clock
        that goes back makes nothing due.
        """
        target = now_us >> TICK_BITS
        keys: list[K] = []
        self._last = {}
        self._last_tick = None
        while self._tick < target or self._dealt:
            limit = self._deal(limit)
            if self._dealt:
                break
            level = _level(self._tick ^ target)
            limit = self._take_passed(level, target, keys, limit)
            if limit <= 0:
                break
            shift = level * _DIGIT_BITS
            self._tick = target >> shift << shift
            if level:
                self._dealt = self._slots.pop(_slot_number(level, target), self._dealt)
        is_done = self._tick >= target and not self._dealt
        self.next_us = (self._tick + 1) << TICK_BITS if is_done else 0
        return keys

    def _slot(self, tick: int) -> dict[K, int]:
        # _slot_number(_level(..), tick), written out: each store asks for one.
        level = ((tick ^ self._tick) or 1).bit_length() - 1
        level //= _DIGIT_BITS
        number = level * _SLOTS + (tick >> level * _DIGIT_BITS) % _SLOTS
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = {}
        return slot

    def _deal(self, limit: int) -> int:
        """Move keys of the slot that was reached to their next one: what is left of `limit`."""
        dealt = self._dealt
        while dealt and limit > 0:
            limit -= 1
            key, tick = dealt.popitem()
            slot = self._slot_of[key] = self._slot(tick)
            slot[key] = tick
        return limit

    def _take_passed(self, level: int, target: int, keys: list[K], limit: int) -> int:
        """Take what waits in slots that are over before `target`: what is left of `limit`."""
        slots, slot_of = self._slots, self._slot_of
        passed = [range(below * _SLOTS, (below + 1) * _SLOTS) for below in range(level)]
        passed.append(range(_slot_number(level, self._tick), _slot_number(level, target)))
        for numbers in passed:
            for number in numbers:
                slot = slots.get(number)
                if slot is None:
                    continue
                while slot:
                    if limit <= 0:
                        return 0
                    limit -= 1
                    key, _ = slot.popitem()
                    del slot_of[key]
                    keys.append(key)
                del slots[number]
        return limit


def _level(difference: int) -> int:
    """The place of the highest digit that is not zero, 0 for the last one."""
    return max(difference.bit_length() - 1, 0) // _DIGIT_BITS


def _slot_number(level: int, tick: int) -> int:
    return level * _SLOTS + (tick >> level * _DIGIT_BITS) % _SLOTS
