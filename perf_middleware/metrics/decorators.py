"""Timers: how long a block, a function or a generator takes, and how often it fails.

    with timers.timer("load user", category="db"): ...      sync and async `with`
    @timers.track("load user", category="db")               any function, which keeps its nature

Exceptions pass through; they are counted by class.  Works outside a request too.

Cost, us per call (CPython 3.11, shared two-core machine): timer 1.2, track on a function 0.7, on an
async function 0.8, `memory=True` 12 more (two readings of /proc/self/statm).
"""

from __future__ import annotations

import logging
from time import perf_counter_ns
from typing import TYPE_CHECKING, ParamSpec, Self, TypeAlias, TypeVar

from perf_middleware.errors import ConfigurationError, MetricUseError
from perf_middleware.families import OTHER
from perf_middleware.metrics.custom.figures import LABEL_SETS_MAX
from perf_middleware.metrics.custom.instruments import Counter, Histogram, LabelOverflow
from perf_middleware.metrics.custom.tracking import keep_nature
from perf_middleware.metrics.settings import DEFAULT_BUCKETS_S
from perf_middleware.resident import UNKNOWN, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from perf_middleware.families import Family

    Note: TypeAlias = Callable[[str, int], None]

P = ParamSpec("P")
R = TypeVar("R")

EXCEPTION_NAMES_MAX = 100  # classes are made by code, but some code makes them at run time
MEMORY_BOUNDS_BYTES = tuple([2**power for power in range(14, 31, 2)])  # 16 KiB to 1 GiB

logger = logging.getLogger("perf_middleware.metrics")


def log_label_overflow(metric: str, label_sets_max: int) -> None:
    """Say once that a metric is full; the `on_first` of the app's LabelOverflow."""
    logger.warning(
        "%s has %d label sets, its limit: further ones are counted as `other`. "
        "Labels should name kinds, not things (no ids, no raw paths).",
        metric,
        label_sets_max,
    )


class Timers:
    """All timers of an app: `perf_timer_seconds`, `perf_timer_errors`, `perf_timer_memory_bytes`.

    `overflow` counts what found no room for its labels; its owner exposes it.
    `note(category, elapsed_us)` hears of every end, to add it to the current request's breakdown;
    if it raises, that is logged once and the timed code goes on.
    """

    def __init__(
        self,
        *,
        label_sets_max: int = LABEL_SETS_MAX,
        bounds: Sequence[float] = DEFAULT_BUCKETS_S,
        overflow: LabelOverflow,
        note: Note | None = None,
    ) -> None:
        self.note = note
        self._note_failed = False
        names = ("name", "category")
        self._seconds = Histogram(
            "perf_timer_seconds",
            "Time in timed blocks and tracked functions.",
            label_names=names,
            unit="seconds",
            bounds=bounds,
            label_sets_max=label_sets_max,
            overflow=overflow,
        )
        self._memory = Histogram(
            "perf_timer_memory_bytes",
            "Growth of the process' resident memory in blocks timed with memory=True.",
            label_names=names,
            unit="bytes",
            bounds=MEMORY_BOUNDS_BYTES,
            label_sets_max=label_sets_max,
            overflow=overflow,
        )
        self._errors = Counter(
            "perf_timer_errors",
            "Timed blocks and tracked functions that an exception ended.",
            label_names=(*names, "exception"),
            label_sets_max=label_sets_max,
            overflow=overflow,
        )
        self._series: dict[tuple[str, str, bool], _Series] = {}
        self._exception_names: set[str] = set()

    def timer(self, name: str, *, category: str = "app", memory: bool = False) -> Timing:
        """A context manager for one `with` or `async with`; `elapsed_us` holds the result."""
        return Timing(
            self._series.get((name, category, memory)) or self._find(name, category, memory)
        )

    def track(
        self, name: str, *, category: str = "app", memory: bool = False
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Time every call of the decorated function, generator or their async kinds.

        Raises ConfigurationError where it decorates something else, such as a class.
        """
        if not isinstance(name, str):
            raise ConfigurationError(f"track needs a name first: @track('name'), not {name!r}")
        series = self._find(name, category, memory)

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            return keep_nature(series, perf_counter_ns, function)

        return decorate

    def families(self) -> Iterator[Family]:
        """The figures of all timers."""
        for instrument in (self._seconds, self._memory, self._errors):
            yield instrument.family()

    def reset(self) -> None:
        """Set all figures to zero."""
        for instrument in (self._seconds, self._memory, self._errors):
            instrument.reset()

    def _find(self, name: str, category: str, memory: bool) -> _Series:
        cell = self._seconds.labels(name=name, category=category)
        grown = self._memory.labels(name=name, category=category).observe if memory else None
        series = _Series(self, name, category, cell.observe, grown)
        # The overflow series answers for many names: keeping each would grow without end.
        if cell.labels.pairs == (("name", name), ("category", category)):
            self._series[name, category, memory] = series
        return series

    def _count_error(self, name: str, category: str, error: type[BaseException]) -> None:
        exception = error.__name__
        if exception not in self._exception_names:
            if len(self._exception_names) < EXCEPTION_NAMES_MAX:
                self._exception_names.add(exception)
            else:
                exception = OTHER
        self._errors.inc(1, name=name, category=category, exception=exception)

    def _tell(self, note: Note, category: str, elapsed_us: int) -> None:
        try:
            note(category, elapsed_us)
        except Exception:
            if not self._note_failed:
                self._note_failed = True
                logger.exception("the listener of the timers failed; timing goes on")


class _Series:
    """Where the results of one name and category go."""

    __slots__ = ("category", "memory", "name", "observe", "timers")

    def __init__(
        self,
        timers: Timers,
        name: str,
        category: str,
        observe: Callable[[float], None],
        memory: Callable[[float], None] | None,
    ) -> None:
        self.timers = timers
        self.name = name
        self.category = category
        self.observe = observe
        self.memory = memory

    def begin_bytes(self) -> int:
        """The resident memory before, where it is measured."""
        return resident_bytes() if self.memory is not None else 0

    def end(self, elapsed_ns: int, begin_bytes: int, error: type[BaseException] | None) -> None:
        """Record one run; GeneratorExit is a generator that was not read to its end, no error."""
        self.observe(elapsed_ns / 1_000_000_000)
        if self.memory is not None:
            end_bytes = resident_bytes()
            if UNKNOWN not in (begin_bytes, end_bytes):
                self.memory(max(0, end_bytes - begin_bytes))
        timers = self.timers
        if timers.note is not None:
            timers._tell(timers.note, self.category, elapsed_ns // 1000)  # noqa: SLF001 - its part
        if error is not None and error is not GeneratorExit:
            timers._count_error(self.name, self.category, error)  # noqa: SLF001


class Timing:
    """One measurement: enter it once at a time, with `with` or `async with`."""

    __slots__ = ("_began_bytes", "_began_ns", "_series", "elapsed_us")

    def __init__(self, series: _Series) -> None:
        self._series = series
        self._began_ns = 0
        self.elapsed_us = 0

    def __enter__(self) -> Self:
        if self._began_ns:
            raise MetricUseError(self._series.name, "this timer runs already: one for each `with`")
        self._began_bytes = self._series.begin_bytes()
        self._began_ns = perf_counter_ns()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        elapsed_ns = perf_counter_ns() - self._began_ns
        self._began_ns = 0
        self.elapsed_us = elapsed_ns // 1000
        self._series.end(elapsed_ns, self._began_bytes, error_type)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(error_type, error, traceback)
