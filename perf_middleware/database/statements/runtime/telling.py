"""What is told of statements: the slow ones in the log, repeats in the log and as an event."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from threading import Lock
from time import time
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.database.statements.n_plus_one import Finding
from perf_middleware.database.statements.runtime.places import source_of
from perf_middleware.database.statements.slow import LineBudget
from perf_middleware.events import RepeatedStatements

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perf_middleware.database.statements.n_plus_one import Repeat
    from perf_middleware.database.statements.slow import SlowStatement
    from perf_middleware.events import Events

logger = logging.getLogger("perf_middleware.database")

TOLD_MAX: Final = 1_000  # findings that are known as told; then none is told any more
SHOWN: Final = 20  # of the slow ones and of the findings, the newest


class Teller:
    """Writes at most so many lines of each kind in a minute; a finding is told once."""

    def __init__(self, *, per_minute_max: int, events: Events | None) -> None:
        self._slow = LineBudget(per_minute_max)
        self._repeats = LineBudget(per_minute_max)
        self._events = events
        self._lock = Lock()
        self._told: set[tuple[str, str, str, int]] = set()
        self._findings: list[Finding] = []
        self._slow_ones: list[tuple[float, SlowStatement]] = []

    @property
    def suppressed(self) -> int:
        """Lines beyond the budgets."""
        return self._slow.suppressed + self._repeats.suppressed

    def tell_slow(self, slow: SlowStatement, *, now_us: int) -> None:
        """Remember it, and write the line if one is left."""
        with self._lock:
            self._slow_ones = [*self._slow_ones[1 - SHOWN :], (time(), slow)]
            has_line = self._slow.admits(now_us)
        if has_line:
            logger.warning("%s", slow.line())

    def tell_repeats(self, repeats: Iterable[Repeat], route: str, *, now_us: int) -> None:
        """Tell what one request of `route` repeated, as far as that is news."""
        for repeat in repeats:
            place, load = repeat.place, repeat.load
            if place is None or load is None:
                continue
            key = (route, repeat.fingerprint.id, place.file, place.line)
            if key in self._told:
                continue  # mostly, and the lock would cost more than the look
            with self._lock:
                if key in self._told or len(self._told) >= TOLD_MAX:
                    continue
                self._told.add(key)
                has_line = self._repeats.admits(now_us)
            finding = Finding(
                route=route,
                fingerprint=repeat.fingerprint,
                count=repeat.count,
                elapsed_ns=repeat.elapsed_ns,
                place=place,
                source=source_of(place),
                load=load,
            )
            with self._lock:
                self._findings = [*self._findings[1 - SHOWN :], finding]
            if has_line:
                logger.warning("%s", finding.line())
            self._publish(finding)

    def _publish(self, finding: Finding) -> None:
        if self._events is None:
            return
        self._events.publish(
            RepeatedStatements(
                route=finding.route,
                fingerprint=finding.fingerprint.id,
                statement=finding.fingerprint.text,
                count=finding.count,
                elapsed_s=finding.elapsed_ns / 1e9,
                where=str(finding.place),
                source=finding.source,
                fix=finding.fix,
            )
        )

    def reset_counts(self) -> None:
        """The count of suppressed lines back to zero; findings that were told stay so."""
        self._slow.suppressed = self._repeats.suppressed = 0

    def slow_status(self) -> list[dict[str, Any]]:
        """The newest slow statements."""
        return [
            {
                "at": datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds"),
                "route": slow.route,
                "id": slow.fingerprint.id,
                "statement": slow.fingerprint.text,
                "seconds": slow.elapsed_ns / 1e9,
                "rows": slow.rows if slow.rows >= 0 else None,
                "where": None if slow.place is None else str(slow.place),
                "outcome": slow.outcome or "well",
            }
            for at_s, slow in self._slow_ones
        ]

    def status(self) -> list[dict[str, Any]]:
        """The newest findings."""
        return [
            {
                "route": finding.route,
                "id": finding.fingerprint.id,
                "statement": finding.fingerprint.text,
                "count": finding.count,
                "seconds": finding.elapsed_ns / 1e9,
                "where": str(finding.place),
                "source": finding.source,
                "fix": finding.fix,
            }
            for finding in self._findings
        ]
