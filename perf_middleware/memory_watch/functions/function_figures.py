"""What one function's calls did to memory, and whether it looks as if they kept it.

A call that takes a megabyte and gives it back after its caller has used it is no leak, though each
single call "grew" by a megabyte.  So growth is told over blocks of calls:

    RSS at the begin of   call 1 ............ call 65 ............ call 129
                            |--- block: kept ---|--- block: kept ---|
    inside the calls          + + + +  taken      + + + +  taken

A block grows where at least half of what its calls took is still there at the next block's begin,
and they explain at least half of what is there more: other code's growth is not theirs.  Four such
blocks in a row, the first after a warm-up, look like a leak.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from perf_middleware.families import Family, LabelSet, Value, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CALLS_PER_BLOCK: Final = 64  # an item of 1 kB shows in RSS as pages of 4 kB: not in each call
BLOCKS: Final = 4


class GrowthTrend:
    """Whether a function's calls keep what they take: a fold over RSS before and after each."""

    __slots__ = ("_begin_bytes", "_blocks", "_calls", "_is_warm", "_taken_bytes")

    def __init__(self) -> None:
        self._blocks: deque[bool] = deque(maxlen=BLOCKS)
        self._is_warm = False
        self._calls = 0
        self._begin_bytes = 0
        self._taken_bytes = 0

    def add(self, before_bytes: int, after_bytes: int) -> None:
        """One more call."""
        if self._calls == CALLS_PER_BLOCK:
            self._end_block(before_bytes - self._begin_bytes)
        if not self._calls:
            self._begin_bytes = before_bytes
        self._calls += 1
        self._taken_bytes += after_bytes - before_bytes

    def _end_block(self, kept_bytes: int) -> None:
        taken = self._taken_bytes
        if self._is_warm:
            self._blocks.append(taken > 0 and kept_bytes * 2 >= taken and taken * 2 >= kept_bytes)
        self._is_warm = True
        self._calls = self._taken_bytes = 0

    @property
    def keeps_growing(self) -> bool | None:
        """Whether the last blocks all grew; None before there are enough of them."""
        return None if len(self._blocks) < BLOCKS else all(self._blocks)


class FunctionCounts:
    """The counts of one tracked function."""

    __slots__ = (
        "calls",
        "increase_bytes",
        "increase_bytes_max",
        "measured",
        "overlapped",
        "traced",
        "traced_increase_bytes",
        "traced_peak_bytes",
        "trend",
    )

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Every count back to zero; what is known of its growth is forgotten as well."""
        self.calls = self.overlapped = self.measured = self.traced = 0
        self.increase_bytes = self.increase_bytes_max = 0
        self.traced_increase_bytes = self.traced_peak_bytes = 0
        self.trend = GrowthTrend()

    def add_call(self, before_bytes: int, after_bytes: int) -> None:
        """A call that ran alone, and the resident memory before and after it."""
        increase = max(0, after_bytes - before_bytes)
        self.measured += 1
        self.increase_bytes += increase
        self.increase_bytes_max = max(self.increase_bytes_max, increase)
        self.trend.add(before_bytes, after_bytes)

    def add_traced(self, increase_bytes: int, peak_bytes: int) -> None:
        """What a traced call has allocated and not freed at its end, and the most at one time."""
        self.traced += 1
        self.traced_increase_bytes += max(0, increase_bytes)
        self.traced_peak_bytes = max(self.traced_peak_bytes, peak_bytes)

    def status(self) -> dict[str, int | bool | None]:
        """The counts as JSON-able values."""
        return {
            "calls": self.calls,
            "overlapped": self.overlapped,
            "measured": self.measured,
            "increase_bytes": self.increase_bytes,
            "increase_bytes_max": self.increase_bytes_max,
            "traced": self.traced,
            "traced_increase_bytes": self.traced_increase_bytes,
            "traced_peak_bytes": self.traced_peak_bytes,
            "keeps_growing": self.trend.keeps_growing,
        }


def function_families(counts: Mapping[LabelSet, FunctionCounts]) -> Iterable[Family]:
    """The families for a scrape, by the label of each function."""
    rows = tuple(counts.items())
    yield counter(
        "perf_memory_function_calls",
        "Calls of functions whose memory is tracked.",
        [Value(labels, of.calls) for labels, of in rows],
    )
    yield counter(
        "perf_memory_function_overlapped",
        "Such calls during which another one ran: their memory is nobody's alone.",
        [Value(labels, of.overlapped) for labels, of in rows],
    )
    yield counter(
        "perf_memory_function_increase_bytes",
        "By how much resident memory grew during the other calls.",
        [Value(labels, of.increase_bytes) for labels, of in rows],
        unit="bytes",
    )
    yield gauge(
        "perf_memory_function_increase_max_bytes",
        "The most that resident memory grew during one call.",
        [Value(labels, of.increase_bytes_max) for labels, of in rows],
        unit="bytes",
        across="max",
    )
    yield counter(
        "perf_memory_function_traced",
        "Calls whose allocations were traced.",
        [Value(labels, of.traced) for labels, of in rows],
    )
    yield counter(
        "perf_memory_function_traced_increase_bytes",
        "What traced calls had allocated and not freed at their end.",
        [Value(labels, of.traced_increase_bytes) for labels, of in rows],
        unit="bytes",
    )
    yield gauge(
        "perf_memory_function_traced_peak_bytes",
        "The most that one traced call had allocated at one time.",
        [Value(labels, of.traced_peak_bytes) for labels, of in rows],
        unit="bytes",
        across="max",
    )
    yield gauge(
        "perf_memory_function_keeps_growing",
        "Whether a function's calls keep what they take, which looks like a leak: 1 if so.",
        [
            Value(labels, int(of.trend.keeps_growing))
            for labels, of in rows
            if of.trend.keeps_growing is not None
        ],
        across="max",
    )
