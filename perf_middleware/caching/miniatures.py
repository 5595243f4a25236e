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

from collections import OrderedDict

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
        self.small: TwoQueues[int, None] = TwoQueues(
            bytes_max=self._bytes_max,
            entries_max=self._entries_max,
            window_percent=SMALL_PERCENT,
        )
        self.whole = Recent(bytes_max=self._bytes_max, entries_max=self._entries_max)

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
            if self.whole.ask(hashed, size_bytes):
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

    def _rescale(self, shift: int) -> None:
        self._shift = shift
        self.mask = (1 << shift) - 1
        bytes_max = max(1, self._bytes_max >> shift)
        entries_max = max(1, self._entries_max >> shift)
        small = self.small
        small.resize(bytes_max=bytes_max, entries_max=entries_max, window_percent=SMALL_PERCENT)
        for entry in list(small.entries.values()):
            if entry.hashed & self.mask:
                small.remove(entry)
        small.make_room(0, 0)
        self.whole.rescale(bytes_max=bytes_max, entries_max=entries_max, mask=self.mask)


class Recent:
    """The miniature whose window is all the room, which is LRU.

    TwoQueues with such a window decides the same, at four times the price.
    """

    __slots__ = ("bytes_max", "entries_max", "size_bytes", "sizes")

    def __init__(self, *, bytes_max: int, entries_max: int) -> None:
        self.bytes_max = bytes_max
        self.entries_max = entries_max
        self.size_bytes = 0
        self.sizes: OrderedDict[int, int] = OrderedDict()

    def ask(self, hashed: int, size_bytes: int) -> bool:
        """Whether it is there; it is from now on."""
        sizes = self.sizes
        if hashed in sizes:
            sizes.move_to_end(hashed)
            return True
        sizes[hashed] = size_bytes
        self.size_bytes += size_bytes
        if self.size_bytes > self.bytes_max or len(sizes) > self.entries_max:
            self._make_room()
        return False

    def rescale(self, *, bytes_max: int, entries_max: int, mask: int) -> None:
        """Another room, for another sample."""
        self.bytes_max, self.entries_max = bytes_max, entries_max
        for hashed in [hashed for hashed in self.sizes if hashed & mask]:
            self.size_bytes -= self.sizes.pop(hashed)
        self._make_room()

    def _make_room(self) -> None:
        sizes = self.sizes
        while self.size_bytes > self.bytes_max or len(sizes) > self.entries_max:
            self.size_bytes -= sizes.popitem(last=False)[1]
