"""Jobs that are not due yet: a heap by due time, of which jobs may be taken out.

What is taken out stays as a tombstone until it comes up, or half of the heap is dead.
Source: the priority queue of Python's heapq documentation.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

T = TypeVar("T")
DEAD_KEPT: Final = 64


class Due(Generic[T]):
    """Each job once; equal due times leave in the order in which they came."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, T]] = []
        self._alive: dict[T, int] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._alive)

    def add(self, job: T, due_us: int) -> None:
        """`job` is to come back at `due_us`."""
        self._number += 1
        self._alive[job] = self._number
        heappush(self._heap, (due_us, self._number, job))

    def discard(self, job: T) -> None:
        """`job`, which is in here, will not come."""
        del self._alive[job]
        if len(self._heap) > DEAD_KEPT + 2 * len(self._alive):
            alive = self._alive
            self._heap = [entry for entry in self._heap if alive.get(entry[2]) == entry[1]]
            heapify(self._heap)

    def next_us(self) -> int | None:
        """When the first is due; None where none is in here."""
        heap = self._heap
        while heap and self._alive.get(heap[0][2]) != heap[0][1]:
            heappop(heap)
        return heap[0][0] if heap else None

    def take(self, now_us: int) -> T | None:
        """One that is due, or None."""
        next_us = self.next_us()
        if next_us is None or next_us > now_us:
            return None
        job = heappop(self._heap)[2]
        del self._alive[job]
        return job

    def take_later(self, than_us: int) -> list[T]:
        """All that are due after `than_us`, the earliest first."""
        alive = self._alive
        left = [entry for entry in self._heap if alive.get(entry[2]) == entry[1]]
        late = sorted(entry for entry in left if entry[0] > than_us)
        self._heap = [entry for entry in left if entry[0] <= than_us]
        heapify(self._heap)
        for entry in late:
            del alive[entry[2]]
        return [job for _, _, job in late]
