"""`perf.memory.leaks`: judges growth from what the memory watch sees, beside its requests.

    witness, once a second  ->  history  ->  growth of a level  ->  inquiry  ->  verdict

Cost: a new point every two seconds is judged in 0.4 ms, on the watch's thread; the event loop never
waits for it.  An inquiry is rare and short: see inquiry.py.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.events import MemoryVerdict
from perf_middleware.memory_watch.leaks.figures import LeakCounts
from perf_middleware.memory_watch.leaks.growth import POINTS_MIN, growth_of
from perf_middleware.memory_watch.leaks.history import LEVELS, POINTS, History
from perf_middleware.memory_watch.leaks.probes import Census, collect
from perf_middleware.memory_watch.leaks.runtime.inquiry import Inquiry, Looks
from perf_middleware.memory_watch.leaks.verdict import (
    UNTRACED_LEVEL_MIN,
    Rules,
    Verdict,
    has_ended,
    is_above_before,
    is_in_pieces,
    is_suspect,
    kept_bytes,
)
from perf_middleware.memory_watch.leaks.words import (
    growth_picture,
    headline,
    verdict_picture,
    verdict_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perf_middleware.events import Events
    from perf_middleware.families import Family
    from perf_middleware.memory_watch.leaks.growth import Growth
    from perf_middleware.memory_watch.leaks.history import Trough
    from perf_middleware.memory_watch.leaks.route_growth import GrowingRoute, RouteGrowth
    from perf_middleware.memory_watch.leaks.settings import LeakSettings
    from perf_middleware.memory_watch.leaks.verdict import TraceReport
    from perf_middleware.memory_watch.reading import Witness

logger = logging.getLogger("perf_middleware.memory_watch")

US_PER_S: Final = 1_000_000
CENSUS_GAP_US: Final = 60 * US_PER_S  # between two inquiries without a whole tracing
FRUITLESS_DIVISOR: Final = 16  # of the gap, after the first tracing that found nothing
BRIEF_MAX: Final = 2  # such inquiries in a row, before they become rare
CONTEXT_LEVELS: Final = 2  # above the one that is suspect: sixteen times its span
PIECES_LEVEL_MIN: Final = 1
ROUTES_TOLD_MAX: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known now: the verdict that stands, and the growth of each level that is full."""

    verdict: Verdict | None
    growth: tuple[Growth, ...]
    is_warming_up: bool
    is_looking: bool

    def text(self) -> str:
        """The verdict in a sentence, or that there is none."""
        if self.verdict is not None:
            return verdict_text(self.verdict)
        if self.is_warming_up:
            return "memory: too early to judge"
        if self.is_looking:
            return "memory: growth is being looked into"
        return "memory: no growth that is a leak"


def leak_watch_of(
    settings: LeakSettings,
    *,
    trace: Callable[[float], TraceReport | None] | None,
    room_bytes: Callable[[], int | None] | None = None,
    routes: RouteGrowth | None = None,
    events: Events | None = None,
) -> LeakWatch:
    """The watch that the settings describe; `trace` is left out where they say so."""
    return LeakWatch(
        rules=settings.rules(),
        warm_up_us=round(settings.warm_up_s * US_PER_S),
        bucket_us=settings.bucket_us,
        trace=trace if settings.trace else None,
        trace_s=settings.trace_s,
        trace_gap_us=round(settings.trace_gap_s * US_PER_S),
        census=settings.census,
        collect_garbage=settings.collect,
        room_bytes=room_bytes,
        routes=routes,
        events=events,
    )


class LeakWatch:
    """Hears of the memory about once a second, and tells what its growth is.

    `trace` blocks for as many seconds as it is given and returns what it saw, None where it could
    not; it is called on a thread of its own, and never stays on.  `room_bytes` is what is left to
    the tightest bound, None without one.  `observe` is called by one thread at a time, all else by
    any.
    """

    def __init__(
        self,
        *,
        rules: Rules | None = None,
        warm_up_us: int = 10 * US_PER_S,
        bucket_us: int = 2 * US_PER_S,
        trace: Callable[[float], TraceReport | None] | None = None,
        trace_s: float = 5.0,
        trace_gap_us: int = 3_600 * US_PER_S,
        census: bool = True,
        collect_garbage: bool = True,
        room_bytes: Callable[[], int | None] | None = None,
        routes: RouteGrowth | None = None,
        events: Events | None = None,
        looks: Looks | None = None,
    ) -> None:
        self.events = events
        self.routes = routes
        self.counts = LeakCounts()
        self._rules = Rules() if rules is None else rules
        self._warm_up_us = warm_up_us
        self._trace_gap_us = trace_gap_us
        self._room_bytes = room_bytes
        self._looks = looks or Looks(
            census=Census if census else None,
            collect=collect if collect_garbage else None,
            trace=trace,
            trace_s=trace_s,
        )
        self._lock = threading.Lock()  # of the history: the loop reads what the watch writes
        self._history = History(bucket_us=bucket_us)
        self._growth: dict[int, Growth] = {}
        self._started_us: int | None = None
        self._is_warming_up = True
        self._inquiry: Inquiry | None = None
        self._next_inquiry_us = 0
        self._fruitless = self._brief = 0
        self._verdict: Verdict | None = None

    @property
    def verdict(self) -> Verdict | None:
        """The verdict that stands."""
        return self._verdict

    def observe(self, witness: Witness) -> None:
        """Hear what the watch has seen, judge it where there is enough; never raises."""
        try:
            self._observe(witness)
        except Exception:
            self.counts.failures += 1
            self._inquiry = None
            self._next_inquiry_us = witness.at_us + CENSUS_GAP_US
            if self.counts.failures == 1:
                logger.exception("judging the memory's growth failed")

    def _observe(self, witness: Witness) -> None:
        now_us = witness.at_us
        if self._started_us is None:
            self._started_us = now_us
        if now_us - self._started_us < self._warm_up_us:
            return
        self._is_warming_up = False
        inquiry = self._inquiry
        if inquiry is not None:
            inquiry.step(witness)
            if inquiry.is_over:
                self._conclude(inquiry, now_us)
            elif inquiry.is_tracing:
                with self._lock:
                    self._history.break_off()
                return
        with self._lock:
            told = self._history.add(witness)
        for level in range(told):
            with self._lock:
                points = self._history.points(level)
            if points is not None:
                growth = self._growth[level] = growth_of(points, level=level)
                self._judge_level(growth, now_us)

    def _judge_level(self, growth: Growth, now_us: int) -> None:
        standing = self._verdict
        if standing is not None and standing.kind == "leak" and has_ended(standing, growth):
            ended = Verdict(kind="levels_off", reason="ended", at_us=now_us, growth=growth)
            self._tell(ended, taken_back=standing)
            return
        may_look = self._inquiry is None and now_us >= self._next_inquiry_us
        if may_look and is_suspect(growth, self._rules):
            suspect = self._longest_suspect(growth)
            if suspect is not None:
                self.counts.inquiries += 1
                self._inquiry = Inquiry(*suspect, self._looks, now_us=now_us)
        elif growth.level >= PIECES_LEVEL_MIN and self._inquiry is None:
            self._judge_pieces(growth, now_us)

    def _longest_suspect(self, growth: Growth) -> tuple[Growth, tuple[Trough, ...]] | None:
        """The growth of the longest time that is worth an inquiry, with its points.

        None shorter than `growth`.
        """
        least = 0 if self._looks.trace is not None else UNTRACED_LEVEL_MIN
        with self._lock:
            kept = [self._history.points(at, least=POINTS_MIN) for at in range(LEVELS)]
        everything = [point for points in kept for point in points or ()]
        for level in range(LEVELS - 1, max(growth.level, least) - 1, -1):
            points = kept[level]
            if points is None or len(points) < POINTS:
                continue
            found = growth_of(points, level=level)
            if not is_suspect(found, self._rules) or not is_above_before(found, points, everything):
                continue
            # What looks like a line may be the tail of something that levels off.
            longer = [
                growth_of(around, level=at)
                for at, around in enumerate(kept[level + 1 : level + 1 + CONTEXT_LEVELS], level + 1)
                if around is not None
            ]
            if not any(each.is_slowing for each in longer):
                return found, points
        return None

    def _judge_pieces(self, growth: Growth, now_us: int) -> None:
        """Fragmentation needs no inquiry: told when it is seen, over when it is not."""
        standing = self._verdict
        if standing is not None and standing.kind == "leak":
            return
        is_told = standing is not None and standing.kind == "fragmentation"
        with self._lock:
            kept = kept_bytes(self._history.all_points())
        in_pieces = is_in_pieces(growth, self._rules)
        if (in_pieces or kept) and not is_told:
            self._tell(
                Verdict(
                    kind="fragmentation",
                    reason="pieces" if in_pieces else "kept",
                    at_us=now_us,
                    growth=growth,
                    bytes=kept,
                )
            )
        elif is_told and standing is not None and not kept:
            of_level = standing.growth
            if standing.reason == "kept" or (
                of_level is not None and growth.level >= of_level.level and not in_pieces
            ):
                self._verdict = None

    def _conclude(self, inquiry: Inquiry, now_us: int) -> None:
        self._inquiry = None
        verdict = inquiry.verdict
        self.counts.tracings += inquiry.has_traced
        self.counts.failures += inquiry.has_failed
        is_leak = verdict is not None and verdict.kind == "leak"
        if is_leak:
            self._fruitless = 0
        seeks_line = verdict is not None and verdict.reason == "untraced" and inquiry.was_cut_short
        if is_leak and not seeks_line:
            self._brief = 0
            gap_us = self._trace_gap_us
        elif inquiry.has_traced and not inquiry.was_cut_short:
            self._brief = 0
            gap_us = (self._trace_gap_us // FRUITLESS_DIVISOR) << self._fruitless
            gap_us = min(gap_us, self._trace_gap_us)
            self._fruitless = min(self._fruitless + 1, 16)
        else:
            # Each looks through all objects, or collects garbage: for ever, that is too often.
            self._brief += 1
            gap_us = min(
                CENSUS_GAP_US << min(max(0, self._brief - BRIEF_MAX), 16),
                max(CENSUS_GAP_US, self._trace_gap_us // FRUITLESS_DIVISOR),
                self._trace_gap_us,
            )
        self._next_inquiry_us = now_us + gap_us
        if verdict is None:
            return
        if is_leak:
            verdict = replace(
                verdict, left_s=self._left_s(inquiry.growth), by_route=self._by_route()
            )
        standing = self._verdict
        if standing is None:
            self._tell(verdict)
        elif (standing.kind, standing.reason) != (verdict.kind, verdict.reason):
            was_leak = standing.kind == "leak" and not is_leak
            self._tell(verdict, taken_back=standing if was_leak else None)
        elif is_leak and headline(standing) != headline(verdict):
            self._tell(verdict)
        else:
            self._verdict = verdict  # told before: the newer figures are kept, no line more

    def _left_s(self, growth: Growth) -> float | None:
        room = None if self._room_bytes is None else self._room_bytes()
        rate = growth.amount.per_s.slope
        return None if room is None or rate <= 0 else max(0, room) / rate

    def _by_route(self) -> tuple[GrowingRoute, ...]:
        if self.routes is None:
            return ()
        try:
            return tuple(self.routes.growing()[:ROUTES_TOLD_MAX])
        except RuntimeError:  # the loop adds to them: without a lock of the interpreter it may
            return ()

    def _tell(self, verdict: Verdict, *, taken_back: Verdict | None = None) -> None:
        """Log a verdict once, and publish it."""
        self._verdict = verdict
        self.counts.verdicts[verdict.kind] += 1
        text = verdict_text(verdict)
        if taken_back is not None:
            self.counts.taken_back += 1
            text = f"taken back: {headline(taken_back)}; now {headline(verdict)}"
        logger.log(logging.WARNING if verdict.kind == "leak" else logging.INFO, "%s", text)
        if self.events is not None:
            growth = verdict.growth
            of_request = None if growth is None else growth.amount.per_request
            self.events.publish(
                MemoryVerdict(
                    kind=verdict.kind,
                    reason=verdict.reason,
                    text=text,
                    bytes_per_s=None if growth is None else growth.amount.per_s.slope,
                    bytes_per_request=None if of_request is None else of_request.slope,
                    where=verdict.sites[0].where if verdict.sites else "",
                    taken_back=taken_back is not None,
                )
            )

    def give_up(self) -> None:
        """For the end of the app, once nobody observes: no inquiry goes on, and none is resumed."""
        inquiry, self._inquiry = self._inquiry, None
        if inquiry is not None:
            inquiry.give_up()
        with self._lock:
            self._history.break_off()

    def judge(self) -> Evidence:
        """The evidence as it is now, at any time; it traces nothing, and costs the loop nothing:
        what each level's points say was reckoned when the newest of them came.
        """
        growth = dict(self._growth)  # the watch's thread may add to it
        return Evidence(
            verdict=self._verdict,
            growth=tuple(growth[level] for level in sorted(growth)),
            is_warming_up=self._is_warming_up,
            is_looking=self._inquiry is not None,
        )

    def families(self) -> Iterable[Family]:
        """The figures, for a scrape."""
        routes = self.routes
        return self.counts.families(
            standing=self._verdict,
            growth=self._growth.get(0),
            routes=[] if routes is None else routes.growing(),
            route_samples=0 if routes is None else routes.samples,
        )

    def reset_counts(self) -> None:
        """Every count back to zero; what is known of the memory stays."""
        self.counts.reset()

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture."""
        evidence = self.judge()
        return {
            "verdict": None if evidence.verdict is None else verdict_picture(evidence.verdict),
            "warming_up": evidence.is_warming_up,
            "looking_into": evidence.is_looking,
            "growth": [growth_picture(growth) for growth in evidence.growth],
            "tracings": self.counts.tracings,
            "failures": self.counts.failures,
        }
