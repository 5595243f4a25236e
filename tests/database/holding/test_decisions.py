"""The pure parts: what size would do, and in which words a long loan is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.database.holding.admission import retry_after_s
from perf_middleware.database.holding.figures import ROUTES_MAX, PoolCounts
from perf_middleware.database.holding.loans import Line, Loan, overdue, told
from perf_middleware.database.holding.sizing import PoolSeen, advise, needed_connections

S = 1_000_000


@pytest.mark.parametrize(("us", "seconds"), [(0, 1), (S, 1), (S + 1, 2), (900 * S, 60)])
def test_retry_after_is_in_whole_seconds(us, seconds):
    assert retry_after_s(us) == seconds


def seen(**changes):
    given = {
        "size": 10, "overflow_max": 5, "window_us": 100 * S, "loans": 10_000,
        "held_us": 500 * S, "most_lent": 9,
    }  # fmt: skip
    return PoolSeen(**{**given, **changes})


@pytest.mark.parametrize(
    ("pool", "connections", "words"),
    [
        pytest.param(seen(loans=10), None, "Too little seen", id="no guess"),
        pytest.param(seen(window_us=S), None, "Too little seen", id="not from a second"),
        pytest.param(seen(), 10, "The pool fits", id="5 in use of 10, nobody waits"),
        pytest.param(
            seen(held_us=50 * S, most_lent=3), 3, "would have been enough", id="too large"
        ),
        pytest.param(
            seen(held_us=1_400 * S, most_lent=15, waits=4_000, waited_us=400 * S, most_waiting=20),
            22, "22 connections would let few of them wait", id="14 in use of 15 on average",
        ),
        pytest.param(
            seen(held_us=200 * S, most_lent=15, waits=1_000, waited_us=S, most_waiting=4),
            19, "in bursts", id="room on average, and yet a line",
        ),
        pytest.param(
            seen(held_us=1_400 * S, waits=4_000, waited_us=S,
                 held_by_route={"/report": 1_000 * S, "/items": 400 * S}),
            22, "/report held them for 71%", id="one route holds most",
        ),
        pytest.param(
            seen(loans=700, held_us=1_400 * S, waits=400, waited_us=S),
            22, "none be held while something else", id="each is held for 2 s",
        ),
    ],
)  # fmt: skip
def test_a_size_is_advised_in_words(pool, connections, words):
    advice = advise(pool)
    assert advice.connections == connections
    assert words in " ".join(advice.sentences)


@given(st.floats(0, 1_000))
def test_there_are_more_connections_than_are_in_use_on_average(in_use):
    assert needed_connections(in_use) >= max(1, in_use)


def test_a_long_loan_is_told_once_with_its_route_and_line():
    short, long = Loan(9 * S, "GET /b"), Loan(0, "GET /a", (Line("/app/db.py", 12, "load"),))
    assert overdue([short, long], now_us=10 * S, held_us_told=5 * S) == [long]
    assert overdue([short, long], now_us=11 * S, held_us_told=5 * S) == []
    assert told(long, pool="main", now_us=10 * S) == (
        "a connection of main is held for 10.0 s by GET /a, taken at /app/db.py:12 in load"
    )
    assert told(Loan(0, None), pool="main", now_us=S).endswith("1.0 s by no request")


def test_routes_beyond_the_bound_are_counted_together():
    counts = PoolCounts(0)
    for number in range(ROUTES_MAX + 50):
        counts.note_held(f"/{number}", 1)
    assert len(counts.held) == ROUTES_MAX + 1
    assert sum(counts.held["other"].counts) == 50
