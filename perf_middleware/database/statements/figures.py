"""What each statement fingerprint has cost, and what each route's requests did.

A text that was seen before is one look-up.  Everything is bounded, and what is beyond a bound is
counted under `other`: later fingerprints, later routes, and texts that come so fast that making
fingerprints of them would cost more than it tells.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.database.statements.fingerprint import Fingerprint, fingerprint
from perf_middleware.database.statements.listing import sorted_rows
from perf_middleware.families import (
    NO_LABELS,
    OTHER,
    Distribution,
    Family,
    LabelSet,
    Value,
    counter,
    gauge,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perf_middleware.database.statements.listing import Order

NS_PER_S: Final = 1_000_000_000
BUCKETS_S: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
BUCKETS_NS: Final = [round(bound * NS_PER_S) for bound in BUCKETS_S]
FIRST_NS: Final = BUCKETS_NS[0]  # most look-ups by a key are done within
ROUTES_MAX: Final = 500
# Not looked at for repeats: `other` is many statements, and those around units of work have no
# better form.
MANY_BY_NATURE: Final = frozenset(
    (OTHER, "savepoint", "release", "rollback", "commit", "begin", "set", "show", "pragma")
)
TEXT_CHARS_MAX: Final = 64_000  # a longer text is looked at each time it comes, and is not kept
TOLD: Final = 20  # statements and routes that the status shows


class StatementRow:
    """The counts of one fingerprint.  `rows` as far as the driver tells them."""

    __slots__ = (
        "buckets", "cancelled", "errors", "fingerprint", "labels", "longest_ns", "may_repeat",
        "rows", "slow", "sum_ns",
    )  # fmt: skip

    def __init__(self, fingerprint: Fingerprint, label: str) -> None:
        self.fingerprint = fingerprint
        self.labels = LabelSet([("statement", label)])
        self.may_repeat = fingerprint.verb not in MANY_BY_NATURE
        self.reset()

    @property
    def calls(self) -> int:
        """Statements that ran, those that failed among them."""
        return sum(self.buckets)

    def reset(self) -> None:
        """All counts back to zero."""
        self.buckets = [0] * (len(BUCKETS_NS) + 1)
        self.sum_ns: int = 0
        self.longest_ns: int = 0
        self.rows: int = 0
        self.slow: int = 0
        self.errors = self.cancelled = 0

    def count(self, elapsed_ns: int, rows: int) -> None:
        """One statement that ran; `rows` is -1 where the driver does not tell."""
        self.buckets[bisect_left(BUCKETS_NS, elapsed_ns) if elapsed_ns > FIRST_NS else 0] += 1
        self.sum_ns += elapsed_ns
        if elapsed_ns > self.longest_ns:
            self.longest_ns = elapsed_ns
        if rows > 0:
            self.rows += rows

    def count_failure(self, *, was_cancelled: bool) -> None:
        """The statement that is counted did not end well."""
        if was_cancelled:
            self.cancelled += 1
        else:
            self.errors += 1

    def status(self) -> dict[str, Any]:
        """The row for people, seconds."""
        calls = self.calls
        return {
            "id": self.fingerprint.id,
            "statement": self.fingerprint.text,
            "calls": calls,
            "seconds": self.sum_ns / NS_PER_S,
            "mean_s": self.sum_ns / NS_PER_S / calls if calls else 0.0,
            "longest_s": self.longest_ns / NS_PER_S,
            "rows": self.rows,
            "errors": self.errors,
            "cancelled": self.cancelled,
            "slow": self.slow,
        }


class RouteRow:
    """The counts of one route's requests that used a database."""

    __slots__ = ("labels", "repeated", "requests", "statements", "sum_ns")

    def __init__(self, route: str) -> None:
        self.labels = LabelSet([("route", route)])
        self.requests = self.statements = self.sum_ns = self.repeated = 0


class StatementFigures:
    """Rows by fingerprint and by text, and routes.

    The caller sees to one thread at a time; `count_request` and a row's `count` need none.  A row
    of `by_text` or `by_route` may be added to in their place.
    """

    def __init__(
        self,
        *,
        fingerprints_max: int,
        texts_max: int,
        texts_chars_max: int,
        new_texts_per_s_max: int,
    ) -> None:
        self._fingerprints_max = fingerprints_max
        self._texts_max = texts_max
        self._texts_chars_max = texts_chars_max
        self._new_texts_per_s_max = new_texts_per_s_max
        self.by_text: dict[str, StatementRow] = {}
        self._texts_chars = 0
        self._rows: dict[str, StatementRow] = {}
        self._other = StatementRow(Fingerprint(OTHER, OTHER, OTHER), OTHER)
        self.by_route: dict[str, RouteRow] = {}
        self._second = -1
        self._new_texts = 0
        self.unread = 0

    def row_of_new(self, sql: str, *, now_us: int, backslash_escapes: bool = False) -> StatementRow:
        """The row of a text that `by_text` does not have; it has it then, within the bounds."""
        second = now_us // 1_000_000
        if second != self._second:
            self._second = second
            self._new_texts = 0
        self._new_texts += 1
        if self._new_texts > self._new_texts_per_s_max:
            self.unread += 1
            return self._other
        print_ = fingerprint(sql, backslash_escapes=backslash_escapes)
        row = self._rows.get(print_.id)
        if row is None:
            if len(self._rows) >= self._fingerprints_max:
                row = self._other
            else:
                row = self._rows[print_.id] = StatementRow(print_, print_.label)
        if len(sql) <= TEXT_CHARS_MAX:
            self._keep(sql, row)
        return row

    def _keep(self, sql: str, row: StatementRow) -> None:
        texts = self.by_text
        texts[sql] = row
        self._texts_chars += len(sql)
        while texts and (len(texts) > self._texts_max or self._texts_chars > self._texts_chars_max):
            oldest = next(iter(texts))
            self._texts_chars -= len(oldest)
            del texts[oldest]

    def count_request(self, route: str, statements: int, elapsed_ns: int, repeated: int) -> None:
        """One request that used a database has ended; `repeated` findings were made in it."""
        row = self.by_route.get(route)
        if row is None:
            if len(self.by_route) >= ROUTES_MAX:
                route = OTHER
            row = self.by_route.setdefault(route, RouteRow(route))
        row.requests += 1
        row.statements += statements
        row.sum_ns += elapsed_ns
        if repeated:
            row.repeated += repeated

    def rows(self) -> list[StatementRow]:
        """Those that have counted something, `other` last."""
        return [row for row in (*self._rows.values(), self._other) if row.sum_ns or row.errors]

    def reset_counts(self) -> None:
        """All counts back to zero; fingerprints that are known stay so."""
        for row in (*self._rows.values(), self._other):
            row.reset()
        self.by_route.clear()
        self.unread = 0

    def status(self, top: int = TOLD, by: Order = "seconds") -> dict[str, Any]:
        """The rows with most of `by`, the routes that took most, how full the bounded maps are."""
        routes = sorted(self.by_route.items(), key=lambda each: each[1].sum_ns, reverse=True)
        return {
            "fingerprints": len(self._rows),
            "texts": len(self.by_text),
            "unread": self.unread,
            "statements": [row.status() for row in sorted_rows(self.rows(), by, top)],
            "routes": {
                route: {
                    "requests": row.requests,
                    "statements": row.statements,
                    "seconds": row.sum_ns / NS_PER_S,
                    "repeated": row.repeated,
                }
                for route, row in routes[:TOLD]
            },
        }

    def families(self) -> Iterable[Family]:
        """The families for a scrape."""
        rows = self.rows()
        yield Family(
            name="perf_database_statement_seconds",
            kind="histogram",
            help="How long statements took, by fingerprint; errors and cancelled ones included.",
            points=[
                Distribution(row.labels, list(accumulate(row.buckets)), row.sum_ns / NS_PER_S)
                for row in rows
            ],
            unit="seconds",
            bounds=BUCKETS_S,
        )
        yield counter(
            "perf_database_statement_rows",
            "Rows that statements returned or changed, as far as the driver tells.",
            [Value(row.labels, row.rows) for row in rows],
        )
        yield counter(
            "perf_database_statement_errors",
            "Statements that failed.",
            [Value(row.labels, row.errors) for row in rows],
        )
        yield counter(
            "perf_database_statement_cancelled",
            "Statements that were given up before they ended: a client left, a time was over.",
            [Value(row.labels, row.cancelled) for row in rows],
        )
        yield counter(
            "perf_database_statement_slow",
            "Statements that took as long as `slow_s` or longer.",
            [Value(row.labels, row.slow) for row in rows],
        )
        yield counter(
            "perf_database_statement_unread",
            "Statements whose text was new when too many new ones came: counted as `other`.",
            [Value(NO_LABELS, self.unread)],
        )
        yield gauge(
            "perf_database_statement_fingerprints",
            "Statement fingerprints that are counted apart.",
            [Value(NO_LABELS, len(self._rows))],
            across="max",
        )
        routes = list(self.by_route.values())
        yield counter(
            "perf_database_requests",
            "Requests that used a database.",
            [Value(row.labels, row.requests) for row in routes],
        )
        yield counter(
            "perf_database_request_statements",
            "Statements within requests.",
            [Value(row.labels, row.statements) for row in routes],
        )
        yield counter(
            "perf_database_request_seconds",
            "Time of statements within requests; those that run at once add up.",
            [Value(row.labels, row.sum_ns / NS_PER_S) for row in routes],
            unit="seconds",
        )
        yield counter(
            "perf_database_request_repeats",
            "Findings of the same statement repeated from the same place within one request.",
            [Value(row.labels, row.repeated) for row in routes],
        )
