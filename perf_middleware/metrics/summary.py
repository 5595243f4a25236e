"""The figures for people: counts, rates and p50/p95/p99 of each route, as plain JSON values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perf_middleware.metrics.families import Distribution, Value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perf_middleware.metrics.families import Family
    from perf_middleware.metrics.histogram import Scale

QUANTILES = (("p50_s", 0.5), ("p95_s", 0.95), ("p99_s", 0.99))
ROUTES_MAX = 1_000  # what a person or a page can take; the scrape has them all


def summarise(families: Iterable[Family], scale: Scale) -> dict[str, Any]:
    """Totals and one row for each (method, route), the one that took most time in all first.

    `families` are those of RequestFigures, histograms in the fine bounds of `scale`.  Durations are
    in seconds, since the start or the last reset; a quantile is None without observations.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    totals: dict[str, Any] = {"requests": 0, "failed": 0, "in_progress": 0}
    for family in families:
        match family.name:
            case "http_requests":
                _add_statuses(family, rows, totals)
            case "http_request_duration_seconds":
                _add_durations(family, rows, scale, totals)
            case "perf_response_first_byte_seconds":
                _add_first_bytes(family, rows, scale)
            case "http_requests_in_progress":
                totals["in_progress"] = sum(p.value for p in _values(family))
            case "perf_request_bytes" | "perf_response_bytes":
                for point in _values(family):
                    _row(rows, point)[family.name.removeprefix("perf_")] = point.value
            case "perf_client_disconnects" | "perf_request_exceptions":
                key = family.name.removeprefix("perf_").removeprefix("request_")
                for point in _values(family):
                    row = _row(rows, point)
                    row[key] = row.get(key, 0) + point.value
    ranked = sorted(rows.values(), key=lambda row: row.get("total_s", 0.0), reverse=True)
    return {**totals, "routes": ranked[:ROUTES_MAX], "routes_left_out": len(ranked[ROUTES_MAX:])}


def _values(family: Family) -> Iterable[Value]:
    return (point for point in family.points if isinstance(point, Value))


def _row(
    rows: dict[tuple[str, str], dict[str, Any]], point: Value | Distribution
) -> dict[str, Any]:
    labels = dict(point.labels.pairs)
    key = (labels["method"], labels["route"])
    row = rows.get(key)
    if row is None:
        row = rows[key] = {"method": key[0], "route": key[1], "requests": 0, "statuses": {}}
    return row


def _add_statuses(
    family: Family, rows: dict[tuple[str, str], dict[str, Any]], totals: dict[str, Any]
) -> None:
    for point in _values(family):
        row = _row(rows, point)
        status = dict(point.labels.pairs)["status"]
        row["requests"] += point.value
        row["statuses"][status] = row["statuses"].get(status, 0) + point.value
        totals["requests"] += point.value
        totals["failed"] += point.value if status >= "500" and status.isdigit() else 0


def _add_durations(
    family: Family,
    rows: dict[tuple[str, str], dict[str, Any]],
    scale: Scale,
    totals: dict[str, Any],
) -> None:
    together: list[int] = []
    for point in family.points:
        if not isinstance(point, Distribution):
            continue
        row = _row(rows, point)
        count = point.cumulative[-1]
        row["mean_s"] = _rounded(point.sum / count) if count else None
        row["total_s"] = _rounded(point.sum)
        for name, q in QUANTILES:
            row[name] = _rounded(scale.quantile_s(point.cumulative, q))
        if together:
            together = [a + b for a, b in zip(together, point.cumulative, strict=True)]
        else:
            together = list(point.cumulative)
    for name, q in QUANTILES:
        totals[name] = _rounded(scale.quantile_s(together, q)) if together else None


def _add_first_bytes(
    family: Family, rows: dict[tuple[str, str], dict[str, Any]], scale: Scale
) -> None:
    for point in family.points:
        if isinstance(point, Distribution):
            row = _row(rows, point)
            row["first_byte_p95_s"] = _rounded(scale.quantile_s(point.cumulative, 0.95))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else float(f"{seconds:.4g}")
