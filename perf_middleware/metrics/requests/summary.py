"""The figures for people: counts, rates and p50/p95/p99 of each route, as plain JSON values.

Ten thousand routes take a fifth of a second to sum up, so they are read in steps: whoever asks for
the summary lets other requests run between two of them.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from perf_middleware.families import Distribution, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from perf_middleware.families import Family, Point
    from perf_middleware.metrics.requests.histogram import Scale

QUANTILES = (("p50_s", 0.5), ("p95_s", 0.95), ("p99_s", 0.99))
ROUTES_MAX = 1_000  # what a person or a page can take; the scrape has them all
STEP_POINTS_MAX = 50  # about half a millisecond of work on a slow core


class Summary:
    """Totals and one row for each (method, route): exhaust `read`, then take the `result`."""

    def __init__(self, scale: Scale) -> None:
        self._scale = scale
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        self._together = scale.empty()
        self._totals: dict[str, Any] = {"requests": 0, "failed": 0, "in_progress": 0}

    def read(self, families: Iterable[Family]) -> Iterator[None]:
        """Take in `families`; every yield is a moment to let others run.

        They are those of RequestFigures, histograms in the fine bounds of the scale; others are
        passed over.
        """
        for family in families:
            add = self._reader(family.name)
            # A worker process of other settings has other bounds: its requests count, no more.
            other_bounds = family.kind == "histogram" and tuple(family.bounds) != self._scale.fine_s
            if add is None or other_bounds:
                continue
            points = iter(family.points)
            while batch := list(islice(points, STEP_POINTS_MAX)):
                for point in batch:
                    add(point)
                yield

    def result(self) -> dict[str, Any]:
        """JSON-able totals, and the rows that took most time, the slowest in all first.

        Durations are in seconds, since the start or the last reset; a quantile is None without
        observations.
        """
        ranked = sorted(self._rows.values(), key=lambda row: row.get("total_s", 0.0), reverse=True)
        quantiles = {
            name: _rounded(self._scale.quantile_s(self._together, q)) for name, q in QUANTILES
        }
        return {
            **self._totals,
            **quantiles,
            "routes": ranked[:ROUTES_MAX],
            "routes_left_out": len(ranked[ROUTES_MAX:]),
        }

    def _reader(self, name: str) -> Callable[[Point], None] | None:
        match name:
            case "http_requests":
                return self._add_status
            case "http_request_duration_seconds":
                return self._add_duration
            case "perf_response_first_byte_seconds":
                return self._add_first_byte
            case "http_requests_in_progress":
                return self._add_in_progress
            case "perf_request_bytes" | "perf_response_bytes" | "perf_client_disconnects":
                key = name.removeprefix("perf_")
            case "perf_request_exceptions":
                key = "exceptions"
            case _:
                return None

        def add(point: Point) -> None:
            if isinstance(point, Value):
                row = self._row(point)
                row[key] = row.get(key, 0) + point.value

        return add

    def _row(self, point: Point) -> dict[str, Any]:
        labels = dict(point.labels.pairs)
        key = (labels["method"], labels["route"])
        row = self._rows.get(key)
        if row is None:
            row = {"method": key[0], "route": key[1], "requests": 0, "statuses": {}}
            self._rows[key] = row
        return row

    def _add_in_progress(self, point: Point) -> None:
        if isinstance(point, Value):
            self._totals["in_progress"] += point.value

    def _add_status(self, point: Point) -> None:
        if not isinstance(point, Value):
            return
        row = self._row(point)
        status = dict(point.labels.pairs)["status"]
        row["requests"] += point.value
        row["statuses"][status] = row["statuses"].get(status, 0) + point.value
        self._totals["requests"] += point.value
        self._totals["failed"] += point.value if status >= "500" and status.isdigit() else 0

    def _add_duration(self, point: Point) -> None:
        if not isinstance(point, Distribution):
            return
        row = self._row(point)
        count = point.cumulative[-1]
        row["mean_s"] = _rounded(point.sum / count) if count else None
        row["total_s"] = _rounded(point.sum)
        for name, q in QUANTILES:
            row[name] = _rounded(self._scale.quantile_s(point.cumulative, q))
        self._together = [a + b for a, b in zip(self._together, point.cumulative, strict=True)]

    def _add_first_byte(self, point: Point) -> None:
        if isinstance(point, Distribution):
            row = self._row(point)
            row["first_byte_p95_s"] = _rounded(self._scale.quantile_s(point.cumulative, 0.95))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else float(f"{seconds:.4g}")
