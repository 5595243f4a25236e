"""Which window suits the requests: two miniature caches try, the real one follows the better.

                      +--> miniature with a window of 1 %  --+
    requests, sampled |                                      +--> hits of late: the leader
     by their hash    +--> miniature with a window of all  --+

No fixed window is good: 1 % is 0.12 better than LRU on a Zipf trace and 0.49 worse where every key
is asked for twice within a cache's length.  A cache of 1/n of the room that sees 1/n of the keys
has about the hit ratio of the whole one.  It holds hashes only, MINIATURE_LENGTH or twice as many,
so that a cache of a million entries pays no more than one of a hundred.

Source: Waldspurger et al., "Cache Modeling and Optimization using Miniature Simulations", ATC 2017.
"""

from __future__ import annotations

from perf_middleware.caching.two_queues import ALL, LARGE_PART, TwoQueues

WINDOWS_PERCENT = (1, ALL)
MINIATURE_LENGTH = 64
PERIOD = 64  # sampled requests between two verdicts; half of a score is forgotten after each
LEAD_MIN = 2  # hits that a period must end with, for the other to take the lead
LEAD_MAX = 4  # hits of a lead that the next period begins with
LEAD_SOON = 8  # hits with which it takes it at once


class Miniatures:
    """Hits of the windows on a sample: a request is in it where `hashed & mask` is zero."""

    __slots__ = (
        "_asked",
        "_bytes_max",
        "_caches",
        "_entries_max",
        "_shift",
        "hits",
        "leader",
        "mask",
    )

    def __init__(self, *, bytes_max: int, entries_max: int) -> None:
        self._bytes_max = bytes_max
        self._entries_max = entries_max
        self.clear()

    def clear(self) -> None:
        """Begin anew, with a sample of all requests."""
        self._shift = 0
        self.mask = 0
        self._asked = 0
        self.hits = [0] * len(WINDOWS_PERCENT)
        self.leader = 0
        self._caches: list[TwoQueues[int, None]] = [
            TwoQueues(
                bytes_max=self._bytes_max, entries_max=self._entries_max, window_percent=percent
            )
            for percent in WINDOWS_PERCENT
        ]

    @property
    def window_percent(self) -> int:
        """The window that has led of late."""
        return WINDOWS_PERCENT[self.leader]

    def ask(self, hashed: int, size_bytes: int) -> bool:
        """Try a request of the sample; True where `judge` is due."""
        # Where one stands for many, a large one would stand for more than there are: left out.
        if not self._shift or size_bytes * LARGE_PART <= self._caches[0].bytes_max:
            hits = self.hits
            for at, cache in enumerate(self._caches):
                entry = cache.entries.get(hashed)
                if entry is None:
                    cache.insert(hashed, hashed, None, size_bytes)
                else:
                    cache.read(entry)
                    hits[at] += 1
        self._asked += 1
        return self._asked >= PERIOD or max(self.hits) - self.hits[self.leader] >= LEAD_SOON

    def judge(self, length: int) -> None:
        """Choose the leader, and at a period's end the sample for a cache of `length` entries."""
        best = max(range(len(self.hits)), key=self.hits.__getitem__)
        if self.hits[best] - self.hits[self.leader] > LEAD_MIN:
            self.leader = best
        if self._asked < PERIOD:
            return
        self._asked = 0
        # Former merits must not hide for long that the requests have changed.
        least = self.hits[best] // 2 - LEAD_MAX
        self.hits = [max(hits // 2, least) for hits in self.hits]
        shift = self._shift
        while length >> shift > 2 * MINIATURE_LENGTH:
            shift += 1
        while shift and length >> shift < MINIATURE_LENGTH // 2:
            shift -= 1
        if shift != self._shift:
            self._rescale(shift)

    def _rescale(self, shift: int) -> None:
        self._shift = shift
        self.mask = (1 << shift) - 1
        for cache in self._caches:
            cache.resize(
                bytes_max=max(1, self._bytes_max >> shift),
                entries_max=max(1, self._entries_max >> shift),
                window_percent=cache.window_percent,
            )
            for entry in list(cache.entries.values()):
                if entry.hashed & self.mask:
                    cache.remove(entry)
            cache.make_room(0, 0)
