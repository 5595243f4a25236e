"""Figures by fingerprint and route: bounded, and readable by a scraper and by people."""

import pytest

from perf_middleware.database.statements.figures import ROUTES_MAX, StatementFigures
from perf_middleware.database.statements.settings import StatementSettings
from perf_middleware.families import Distribution

MS = 1_000_000


def figures(**bounds):
    given = {
        "fingerprints_max": 300, "texts_max": 100, "texts_chars_max": 1_000_000,
        "new_texts_per_s_max": 1_000,
    }  # fmt: skip
    return StatementFigures(**{**given, **bounds})


def count(figures, sql, elapsed_ns=MS, rows=-1, now_us=0):
    row = figures.by_text.get(sql) or figures.row_of_new(sql, now_us=now_us)
    row.count(elapsed_ns, rows)
    return row


def values(figures, name):
    """The values of a family by the first label."""
    (family,) = [each for each in figures.families() if each.name == name]
    return {
        point.labels.pairs[0][1] if point.labels.pairs else "": (
            point.cumulative[-1] if isinstance(point, Distribution) else point.value
        )
        for point in family.points
    }


def test_texts_that_differ_in_values_are_one_row():
    shown = figures()
    rows = {count(shown, f"select * from t where id = {n}", rows=2) for n in range(5)}
    (row,) = rows
    assert (row.calls, row.rows, row.sum_ns) == (5, 10, 5 * MS)
    label = row.fingerprint.label
    assert values(shown, "perf_database_statement_seconds") == {label: 5}
    assert values(shown, "perf_database_statement_rows") == {label: 10}
    assert shown.status()["statements"][0]["statement"] == "SELECT * FROM t WHERE id = ?"


def test_a_driver_that_tells_no_rows_adds_none():
    assert count(figures(), "select 1", rows=-1).rows == 0


def test_errors_and_cancelled_ones_are_counted_apart():
    shown = figures()
    row = count(shown, "select 1")
    row.count_failure(was_cancelled=True)
    row.count_failure(was_cancelled=False)
    row.count_failure(was_cancelled=False)
    assert values(shown, "perf_database_statement_errors") == {row.fingerprint.label: 2}
    assert values(shown, "perf_database_statement_cancelled") == {row.fingerprint.label: 1}


def test_later_fingerprints_are_other():
    shown = figures(fingerprints_max=2)
    for name in "abcd":
        count(shown, f"select {name}")
    calls = values(shown, "perf_database_statement_seconds")
    assert (len(calls), calls["other"]) == (3, 2)
    assert shown.status()["fingerprints"] == 2


@pytest.mark.parametrize(
    "bounds", [{"texts_max": 3}, {"texts_chars_max": 3 * len("select * from t where id = 1")}]
)
def test_the_oldest_texts_are_forgotten_and_their_rows_are_not(bounds):
    shown = figures(**bounds)
    for n in range(9):
        count(shown, f"select * from t where id = {n}")
    assert list(shown.by_text) == [f"select * from t where id = {n}" for n in (6, 7, 8)]
    assert shown.status()["fingerprints"] == 1


def test_a_text_that_is_too_long_is_counted_and_not_kept():
    shown = figures()
    row = count(shown, f"select * from t where id in ({', '.join(map(str, range(20_000)))})")
    assert row.fingerprint.text == "SELECT * FROM t WHERE id IN (?)"
    assert shown.by_text == {}


def test_more_new_texts_than_may_be_read_in_a_second_are_other():
    shown = figures(new_texts_per_s_max=2)
    for n in range(5):
        count(shown, f"select {'a' * n}b", now_us=999_999)
    count(shown, "select c", now_us=1_000_000)
    calls = values(shown, "perf_database_statement_seconds")
    assert (len(calls), calls["other"]) == (4, 3)
    assert values(shown, "perf_database_statement_unread") == {"": 3}


def test_requests_are_counted_by_route_up_to_a_bound():
    shown = figures()
    for n in range(ROUTES_MAX + 2):
        shown.count_request(f"/{n}", statements=3, elapsed_ns=MS, repeated=1)
    shown.count_request("/0", statements=4, elapsed_ns=MS, repeated=0)
    requests = values(shown, "perf_database_requests")
    assert (requests["/0"], requests["other"]) == (2, 2)
    assert values(shown, "perf_database_request_statements")["/0"] == 7
    assert values(shown, "perf_database_request_seconds")["/0"] == pytest.approx(0.002)
    assert values(shown, "perf_database_request_repeats")["/0"] == 1


def test_counts_are_reset_and_fingerprints_stay_known():
    shown = figures()
    count(shown, "select 1")
    shown.count_request("/", statements=1, elapsed_ns=1, repeated=0)
    shown.reset_counts()
    assert values(shown, "perf_database_statement_seconds") == {}
    assert shown.status()["routes"] == {}
    assert "select 1" in shown.by_text


def test_the_settings_make_a_watch():
    watch = StatementSettings(repeats=False, slow_s=None).make_watch()
    assert watch.status()["statements"] == []
    assert {family.name for family in watch.families()} >= {
        "perf_database_statement_seconds",
        "perf_database_statement_failures",
    }
