"""Which window suits the requests: two miniature caches try, the real one follows the better.

                      +--> miniature with a window of 1 %  ---- hits: lead + 1
    requests, sampled |
     by their hash    +--> miniature with a window of all  ---- hits: lead - 1

No fixed window is good: 1 % has a hit ratio 0.12 above that of LRU on Zipf traces, and 0.49 below
it where every key is asked for twice within a cache's length.  A cache of 1/n of the room that sees
1/n of the keys has about the hit ratio of the whole one.  It holds hashes only, MINIATURE_LENGTH
or twice as many, so that a cache of a million entries pays no more than one of a hundred.

LRU is the promise, the small window the gain: LRU takes over as soon as it is ahead, the small
window once it has been for a while.  Where both took over as soon, phases of twice the cache's
length cost 0.034 of LRU's hit ratio; now no trace of benchmarks/traces.py costs more than 0.005.

Source: Waldspurger et al., "Cache Modeling and Optimization using Miniature Simulations", ATC 2017.
"""

from __future__ import annotations

from perf_middleware.caching.two_queues import ALL, LARGE_PART, TwoQueues

SMALL_PERCENT = 1
MINIATURE_LENGTH = 64
PERIOD = 64  # sampled requests, after which a quarter of the lead is forgotten
TAKEN_OVER = 6  # hits ahead: at once for LRU, at the end of a period for the small window
# What a period begins with at most: former merits must not hide that the requests have changed.
LEAD_MAX = 4
LEAD_MIN = -24


class Miniatures:
    """Compares two windows on a sample: a request is in it where `hashed & mask` is zero."""

    __slots__ = (
        "_asked", "_bytes_max", "_entries_max", "_shift", "lead", "mask", "small", "whole",
        "window_percent",
    )  # fmt: skip

    def __init__(self, *, bytes_max: int, entries_max: int) -> None:
        self._bytes_max = bytes_max
        self._entries_max = entries_max
        self.clear()

    def clear(self) -> None:
        """Begin anew, with a sample of all requests."""
        self._shift = 0
        self.mask = 0
        self._asked = 0
        self.lead = 0  # hits that the small window is ahead, those of late weighing more
        self.window_percent = SMALL_PERCENT  # the window to use
        self.small = self._miniature(SMALL_PERCENT)
        self.whole = self._miniature(ALL)

    def ask(self, hashed: int, size_bytes: int) -> bool:
        """Try a request of the sample; True at the end of a period: `judge` is due."""
        # Where one stands for many, a large one would stand for more than there are: left out.
        if not self._shift or size_bytes * LARGE_PART <= self.small.bytes_max:
            entry = self.small.entries.get(hashed)
            if entry is None:
                self.small.insert(hashed, hashed, None, size_bytes)
            else:
                self.small.read(entry)
                self.lead += 1
            entry = self.whole.entries.get(hashed)
            if entry is None:
                self.whole.insert(hashed, hashed, None, size_bytes)
            else:
                self.whole.read(entry)
                self.lead -= 1
            if self.lead <= -TAKEN_OVER:
                self.window_percent = ALL
        self._asked += 1
        return self._asked >= PERIOD

    def judge(self, length: int) -> None:
        """End a period: choose the window, and the sample for a cache of `length` entries."""
        self._asked = 0
        lead = self.lead
        if lead >= TAKEN_OVER:
            self.window_percent = SMALL_PERCENT
        lead = lead * 3 // 4 if lead > 0 else -(-lead * 3 // 4)
        self.lead = max(LEAD_MIN, min(LEAD_MAX, lead))
        shift = self._shift
        while length >> shift > 2 * MINIATURE_LENGTH:
            shift += 1
        while shift and length >> shift < MINIATURE_LENGTH // 2:
            shift -= 1
        if shift != self._shift:
            self._rescale(shift)

    def _miniature(self, window_percent: int) -> TwoQueues[int, None]:
        return TwoQueues(
            bytes_max=self._bytes_max,
            entries_max=self._entries_max,
            window_percent=window_percent,
        )

    def _rescale(self, shift: int) -> None:
        self._shift = shift
        self.mask = (1 << shift) - 1
        for cache in (self.small, self.whole):
            cache.resize(
                bytes_max=max(1, self._bytes_max >> shift),
                entries_max=max(1, self._entries_max >> shift),
                window_percent=cache.window_percent,
            )
            for entry in list(cache.entries.values()):
                if entry.hashed & self.mask:
                    cache.remove(entry)
            cache.make_room(0, 0)
