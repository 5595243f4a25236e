"""The tally of one request, what it finds, and how that reads."""

import pytest

from perf_middleware.database.statements.fingerprint import fingerprint
from perf_middleware.database.statements.n_plus_one import (
    LOOKS,
    OWN,
    TALLY_MAX,
    Finding,
    Load,
    Place,
    RequestTally,
    fix_of,
)
from perf_middleware.database.statements.slow import LineBudget, SlowStatement

ORDERS = fingerprint("select * from orders where id = ?")
LINES = fingerprint("select * from lines where id = ?")
PLACE = Place("/app/views.py", 12, "orders")


def run(tally, *statements):
    """Each statement as (fingerprint, place, load); how often a place was looked for."""
    looks = 0
    for print_, place, load in statements:
        repeat = tally.add(print_, 1_000)
        if repeat is not None:
            looks += 1
            if tally.at(repeat, place, 1_000):
                repeat.load, repeat.place = load, PLACE
    return looks


def found(tally):
    return [(repeat.fingerprint, repeat.count, repeat.elapsed_ns) for repeat in tally.findings()]


@pytest.mark.parametrize(
    ("places", "findings"),
    [
        pytest.param("aa", [], id="twice is not three times"),
        pytest.param("aaa", [3], id="three times is"),
        pytest.param("a" * 50, [50], id="all further ones count"),
        pytest.param("aabb", [], id="from two places twice each"),
        pytest.param("abcdef", [], id="from everywhere"),
        pytest.param("aabbbcc", [5], id="the place with most, and what comes after its finding"),
        pytest.param("abab" + "a" * 4, [5], id="in turns: without the other place and the first"),
    ],
)
def test_three_from_the_same_place_are_a_finding(places, findings):
    tally = RequestTally(3)
    run(tally, *[(ORDERS, place, OWN) for place in places])
    assert found(tally) == [(ORDERS, count, 1_000 * count) for count in findings]


def test_different_statements_are_counted_apart():
    tally = RequestTally(3)
    run(tally, *[(print_, "a", OWN) for print_ in (ORDERS, LINES) * 3])
    assert [each[0] for each in found(tally)] == [ORDERS, LINES]


def test_an_eager_loaders_batches_are_no_finding():
    tally = RequestTally(3)
    run(tally, *[(ORDERS, "a", Load("eager", ("Customer.orders",), many=True))] * 9)
    assert found(tally) == []


@pytest.mark.parametrize(
    ("places", "looks"),
    [
        pytest.param("a", 0, id="not at the first"),
        pytest.param("a" * 50, 2, id="not after its finding"),
        pytest.param(range(50), 3 * LOOKS, id="not without end"),
    ],
)
def test_a_place_is_looked_for_where_it_can_matter(places, looks):
    assert run(RequestTally(3), *[(ORDERS, place, OWN) for place in places]) == looks


def test_a_request_of_very_many_statements_is_tallied_up_to_a_bound():
    tally = RequestTally(2)
    prints = [fingerprint(f"select a{n}") for n in range(TALLY_MAX + 5)]
    run(tally, *[(print_, "a", OWN) for print_ in prints * 2])
    assert len(found(tally)) == TALLY_MAX


@pytest.mark.parametrize(
    ("load", "verb", "fix"),
    [
        pytest.param(
            Load("lazy", ("Order.lines",), many=True), "select",
            ".options(selectinload(Order.lines))", id="a list",
        ),
        pytest.param(
            Load("lazy", ("Order.customer",)), "select", ".options(joinedload(Order.customer))",
            id="a single object",
        ),
        pytest.param(
            Load("lazy", ("Customer.orders", "Order.lines"), many=True), "select",
            ".options(selectinload(Customer.orders).selectinload(Order.lines))",
            id="a list below a list",
        ),
        pytest.param(
            Load("lazy", ("Customer.orders", "Order.shop")), "select",
            ".options(selectinload(Customer.orders).joinedload(Order.shop))",
            id="a single object below a list",
        ),
        pytest.param(OWN, "select", ".where(key.in_(keys))", id="a select"),
        pytest.param(OWN, "insert", "execute(insert(...), [{...}, ...])", id="an insert"),
        pytest.param(OWN, "update", "one update for all rows", id="an update"),
        pytest.param(OWN, "delete", "execute(..., [{...}, ...])", id="a delete"),
        pytest.param(Load("columns", ("Order",)), "select", "expire_on_commit=False", id="columns"),
        pytest.param(Load("lazy"), "select", "key.in_(keys)", id="a load that is not understood"),
    ],
)  # fmt: skip
def test_the_fix_is_told_in_sqlalchemys_words(load, verb, fix):
    assert fix in fix_of(load, verb)


def test_a_finding_is_one_line():
    finding = Finding(
        route="GET /orders", fingerprint=ORDERS, count=50, elapsed_ns=42_000_000, place=PLACE,
        source="order.lines", load=Load("lazy", ("Order.lines",), many=True),
    )  # fmt: skip
    assert finding.line() == (
        f"repeated statement: GET /orders ran select orders {ORDERS.id} 50 times in one request, "
        "0.042 s (Order.lines, loaded lazily), at /app/views.py:12 in orders: order.lines; "
        "instead: .options(selectinload(Order.lines)); "
        "statement: SELECT * FROM orders WHERE id = ?"
    )


@pytest.mark.parametrize(
    ("rows", "route", "place", "outcome", "line"),
    [
        (3, "GET /a", PLACE, "", "took 0.700 s, 3 rows in GET /a at /app/views.py:12 in orders: "),
        (-1, "", None, "", "took 0.700 s outside a request: "),
        (-1, "", None, "cancelled", "took 0.700 s, cancelled outside a request: "),
    ],
)
def test_a_slow_statement_is_one_line_without_values(rows, route, place, outcome, line):
    slow = SlowStatement(
        fingerprint=ORDERS, elapsed_ns=700_000_000, rows=rows, route=route, place=place,
        outcome=outcome,
    )  # fmt: skip
    assert slow.line() == f"slow statement: {ORDERS.label} {line}{ORDERS.text}"


def test_a_budget_of_lines_is_new_each_minute():
    budget = LineBudget(2)
    assert [budget.admits(now_us) for now_us in (0, 1, 2, 60_000_000)] == [True, True, False, True]
    assert budget.suppressed == 1
