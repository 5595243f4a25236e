"""The shop's first rows and its bar codes: pure, so no server is needed."""

import pytest

from examples.fastapi_app.barcode import in_store_code, modules
from examples.fastapi_app.seed import CUSTOMERS, ORDERS, PRODUCTS, seed_rows


@pytest.fixture(scope="module")
def rows():
    return seed_rows()


def test_the_first_rows_are_always_the_same(rows):
    assert seed_rows() == rows


def test_there_are_enough_rows_to_matter(rows):
    assert (len(rows.products), len(rows.customers), len(rows.orders)) == (
        PRODUCTS,
        CUSTOMERS,
        ORDERS,
    )
    assert len(rows.order_lines) > 2 * ORDERS
    assert len(rows.order_events) == ORDERS


def test_what_must_be_unique_is(rows):
    assert len({product["sku"] for product in rows.products}) == PRODUCTS
    assert len({customer["email"] for customer in rows.customers}) == CUSTOMERS


def test_every_total_is_the_sum_of_its_lines(rows):
    totals = dict.fromkeys((order["id"] for order in rows.orders), 0)
    for line in rows.order_lines:
        totals[line["order_id"]] += line["quantity"] * line["unit_price_cents"]
    assert totals == {order["id"]: order["total_cents"] for order in rows.orders}


@pytest.mark.parametrize("number", [1, 7, 2_000, 2**31 - 1])
def test_a_bar_code_checks_and_has_its_guards(number):
    code = in_store_code(number)
    assert len(code) == 13
    assert sum(int(digit) * (1, 3)[place % 2] for place, digit in enumerate(code)) % 10 == 0
    stripes = modules(code)
    assert len(stripes) == 95
    assert (stripes[:3], stripes[45:50], stripes[-3:]) == ("101", "01010", "101")
    assert len(stripes.replace("0", " ").split()) == 30  # 12 digits of two bars, three guards
