"""Buckets in this process's memory, bounded: those that are full again make room first.

    keys    key -> its slot
    slots   |  ...  |  a slot: key -> due time  |  ...  |      in a heap, by their ends
            past: all in it are idle

An entry whose due time is past is *idle*: it says the same as no entry.  Each entry is in a slot
that ends after its due time, a 32nd to a 64th of the window wide, and moves on when that passes the
slot's end.  So whatever is in a slot that is past is idle, and the first slot holds what is nearest
to being so.  What holds when there is no room:

- While anything has been idle for a 32nd of its window, nothing busy is evicted.
- Else what would be full again first is, to a 32nd of a window.  So who floods us with keys evicts
  his own: to evict a key that owes d seconds, every other one must owe about as much.
Source: Varghese, Lauck, Hashed and hierarchical timing wheels, SOSP 1987.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.clock import monotonic_us
from perf_middleware.families import NO_LABELS, LabelSet, Value, counter, gauge
from perf_middleware.limits.rate.gcra import (
    NEVER,
    Left,
    Outcome,
    decide,
    require_cost,
)
from perf_middleware.limits.rate.stores import KEY_BYTES_MAX, bounded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from perf_middleware.clock import Clock
    from perf_middleware.families import Family
    from perf_middleware.limits.rate.gcra import Demand, Draw, Quota

ENTRIES_MAX: Final = 100_000  # 17 MB: measured, 165 bytes each and the key's own, at most 128
_SHARDS: Final = 64  # a dict that grows copies all it has: of a 64th that takes 0.1 ms, not 10
_SHARD: Final = _SHARDS - 1
_SLOT_ENTRIES_MAX: Final = 4_096  # the same of a slot: another one with the same end begins
_FINE: Final = 6  # bits: a window has 32 to 64 slots
_STEPS_MAX: Final = 4  # idle entries and empty slots that one call lets go of
_IDLE, _BUSY = LabelSet([("was", "idle")]), LabelSet([("was", "busy")])
_new = tuple.__new__


class _Slot(dict[bytes, int]):
    """Due times by key, all before `until_us`."""

    __slots__ = ("until_us",)

    until_us: int


class MemoryQuotas:
    """At most `entries_max` buckets; of one event loop, or under the caller's lock."""

    def __init__(self, *, entries_max: int = ENTRIES_MAX, clock: Clock = monotonic_us) -> None:
        if entries_max < 1:
            raise ValueError(f"entries_max must be >= 1: {entries_max}")
        self.entries_max = entries_max
        self._clock = clock
        self._shards: list[dict[bytes, _Slot]] = [{} for _ in range(_SHARDS)]
        self._count = 0
        self._slots: dict[int, _Slot] = {}
        """By their ends; of several with the same end the one that has room."""
        self._ends: list[tuple[int, int, _Slot]] = []
        self._numbers = count()
        self.idle_dropped = 0
        self.busy_evicted = 0

    def __len__(self) -> int:
        return self._count

    def take(self, demands: Sequence[Demand], *, charge: bool = True) -> Outcome:
        """Judge one request and charge it in one step; `charge` False: only look."""
        if len(demands) == 1 and charge:
            ((key, quota, cost, _),) = demands
            left = self.take_one(key, quota, cost)
            return _new(Outcome, (not left.wait_us, (left,)))
        draws: dict[bytes, Draw] = {}
        for key, quota, cost, _ in demands if charge else ():
            if cost > 0:
                interval_us = quota.interval_us
                draws[key] = key, cost * interval_us, quota.window_us, interval_us
        if len(draws) == len(demands) and draws:
            return _new(Outcome, self.take_each(draws.values()))
        now_us = self._clock()
        outcome, changed = decide(demands, self._due_of, now_us=now_us, charge=charge)
        for demand in demands if changed else ():
            due_us = changed.pop(demand.key, None)
            if due_us is not None:
                self._keep(bounded(demand.key), due_us, demand.quota.window_us, now_us)
        return outcome

    def take_each(self, draws: Iterable[Draw]) -> tuple[bool, tuple[Left, ...]]:
        """The same for buckets that are all different, a cost of 1 or more from each."""
        # `decide` and `outcome_of` written out, without a dict: a quarter of the time.
        now_us = self._clock()
        found = []
        admitted = True
        for key, charge_us, window_us, interval_us in draws:
            if len(key) > KEY_BYTES_MAX:
                key = bounded(key)  # noqa: PLW2901
            slot = self._shards[hash(key) & _SHARD].get(key)
            end_us = now_us + window_us
            next_us = now_us + charge_us
            if slot is not None and (due_us := slot[key]) > now_us:
                if due_us > end_us:
                    due_us = end_us
                    self._keep(key, due_us, window_us, now_us)
                next_us = due_us + charge_us
            if next_us > end_us:
                admitted = False
            found.append((key, slot, next_us, end_us, charge_us, interval_us))
        left = []
        for key, slot, next_us, end_us, charge_us, interval_us in found:
            if not admitted:
                over_us = next_us - end_us
                wait_us = max(over_us, 0)
                if charge_us > end_us - now_us:
                    wait_us = NEVER
                due_us = next_us - charge_us
                left.append(
                    _new(Left, ((end_us - due_us) // interval_us, wait_us, due_us - now_us))
                )
                continue
            # To keep one may let go of another, or has moved it.
            if slot is not None and next_us < slot.until_us and key in slot:
                slot[key] = next_us
            else:
                self._keep(key, next_us, end_us - now_us, now_us)
            left.append(_new(Left, ((end_us - next_us) // interval_us, 0, next_us - now_us)))
        return admitted, tuple(left)

    def take_one(self, key: bytes, quota: Quota, cost: int = 1) -> Left:
        """The same for one bucket: admitted where `wait_us` is 0."""
        return _new(Left, self.draw(key, quota, cost))

    def draw(self, key: bytes, quota: Quota, cost: int) -> tuple[int, int, int]:
        """`take_one` on the hot path, where to name what is left takes as long as to look it up."""
        # `decide` written out for one demand: a third of the time.
        clock = self._clock
        now_us = clock()
        window_us = quota.window_us
        keys = self._shards[hash(key) & _SHARD]
        slot = keys.get(key)
        end_us = now_us + window_us
        if slot is None:
            if len(key) > KEY_BYTES_MAX:  # what is there is bounded
                return self.draw(bounded(key), quota, cost)
            due_us = now_us
        else:
            due_us = slot[key]
            if due_us < now_us:
                due_us = now_us
            elif due_us > end_us:
                due_us = end_us
                self._keep(key, due_us, window_us, now_us)
                slot = keys[key]
        interval_us = quota.interval_us
        next_us = due_us + cost * interval_us
        if next_us > end_us or cost < 1:
            return self._not_charged(quota, cost, due_us - now_us)
        if slot is None:
            self._keep(key, next_us, window_us, now_us)
        elif next_us < slot.until_us:
            slot[key] = next_us
        else:
            # `_keep` written out for the slot that is there already.
            fine = window_us.bit_length() - _FINE
            later = None if fine < 0 else self._slots.get((next_us >> fine) + 1 << fine)
            if later is None or len(later) >= _SLOT_ENTRIES_MAX:
                self._keep(key, next_us, window_us, now_us)
            else:
                del slot[key]
                later[key] = next_us
                keys[key] = later
        return (end_us - next_us) // interval_us, 0, next_us - now_us

    def forget(self, key: bytes) -> bool:
        """Its bucket is full again; whether there was one."""
        key = bounded(key)
        slot = self._shards[hash(key) & _SHARD].get(key)
        if slot is None:
            return False
        del slot[key]
        self._drop(key)
        return True

    def note(self, key: bytes, quota: Quota, full_us: int) -> None:
        """Its bucket is known to be full in `full_us` and not before: another store has said so."""
        now_us = self._clock()
        due_us = now_us + full_us
        if due_us > self._due_of(key):
            self._keep(bounded(key), due_us, quota.window_us, now_us)

    def status(self) -> dict[str, Any]:
        return {
            "buckets": len(self),
            "buckets_max": self.entries_max,
            "idle_dropped": self.idle_dropped,
            "busy_evicted": self.busy_evicted,
        }

    def reset_counts(self) -> None:
        self.idle_dropped = self.busy_evicted = 0

    def families(self) -> Iterator[Family]:
        """The figures for /metrics."""
        yield gauge("perf_ratelimit_buckets", "Buckets in memory.", (Value(NO_LABELS, len(self)),))
        yield counter(
            "perf_ratelimit_buckets_forgotten",
            "Buckets that made room: idle ones were full again, busy ones begin anew.",
            (Value(_IDLE, self.idle_dropped), Value(_BUSY, self.busy_evicted)),
        )

    # --- slots ----------------------------------------------------------------------------------

    def _due_of(self, key: bytes) -> int:
        key = bounded(key)
        slot = self._shards[hash(key) & _SHARD].get(key)
        return 0 if slot is None else slot[key]

    def _not_charged(self, quota: Quota, cost: int, full_us: int) -> tuple[int, int, int]:
        require_cost(cost)
        if cost == 0:
            wait_us = 0
        elif cost > quota.burst:
            wait_us = NEVER
        else:
            wait_us = full_us + cost * quota.interval_us - quota.window_us
        return (quota.window_us - full_us) // quota.interval_us, wait_us, full_us

    def _keep(self, key: bytes, due_us: int, window_us: int, now_us: int) -> None:
        """In the slot of its due time."""
        fine = window_us.bit_length() - _FINE
        if fine < 0:
            fine = 0
        until_us = (due_us >> fine) + 1 << fine
        keys = self._shards[hash(key) & _SHARD]
        slot = keys.get(key)
        if slot is not None:
            del slot[key]
        else:
            self._let_go(now_us)
            if self._count >= self.entries_max:
                self._make_room(now_us)
            self._count += 1
        slot = self._slots.get(until_us)
        if slot is None or len(slot) >= _SLOT_ENTRIES_MAX:
            slot = self._slots[until_us] = _Slot()
            slot.until_us = until_us
            heappush(self._ends, (until_us, next(self._numbers), slot))
            self._let_go(now_us)
        slot[key] = due_us
        keys[key] = slot

    def _let_go(self, now_us: int) -> None:
        """A few of what is past, so that nobody ever waits for many."""
        ends = self._ends
        for _ in range(_STEPS_MAX):
            if not ends or ends[0][0] > now_us:
                return
            slot = ends[0][2]
            if slot:
                self._drop(slot.popitem()[0])
                self.idle_dropped += 1
            else:
                self._end_slot()

    def _make_room(self, now_us: int) -> None:
        """One entry of the first slot: idle where any slot is past."""
        ends = self._ends
        while not ends[0][2]:
            self._end_slot()
        key, due_us = ends[0][2].popitem()
        self._drop(key)
        if due_us <= now_us:
            self.idle_dropped += 1
        else:
            self.busy_evicted += 1

    def _end_slot(self) -> None:
        until_us, _, slot = heappop(self._ends)
        if self._slots.get(until_us) is slot:
            del self._slots[until_us]

    def _drop(self, key: bytes) -> None:
        del self._shards[hash(key) & _SHARD][key]
        self._count -= 1
