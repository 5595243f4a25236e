"""What perf_middleware says of the shop: routes by their templates, and the shop's own figures."""

import re

import pytest

from tests.examples.conftest import TOKEN
from tests.examples.figures import scrape, value_of
from tests.examples.servers import eventually
from tests.examples.shop import place_order, wait_until


@pytest.mark.parametrize(
    ("method", "path", "route", "status"),
    [
        pytest.param("GET", "/", "/", "200", id="plain"),
        pytest.param("GET", "/orders/7", "/orders/{order_id}", "200", id="router"),
        pytest.param(
            "GET",
            "/catalogue/products/7",
            "/catalogue/products/{product_id}",
            "200",
            id="router in a router",
        ),
        pytest.param(
            "GET",
            "/catalogue/products/7/barcode.svg",
            "/catalogue/products/{product_id}/barcode.svg",
            "200",
            id="sync endpoint",
        ),
        pytest.param(
            "GET", "/catalogue/products?limit=1", "/catalogue/products", "200", id="query"
        ),
        pytest.param(
            "GET", "/partner/stock/BOO-00003", "/partner/stock/{sku}", "200", id="mounted app"
        ),
        pytest.param("GET", "/static/shop.css", "/static/{path}", "200", id="mounted files"),
        pytest.param("GET", "/reports/orders.csv", "/reports/orders.csv", "200", id="streamed"),
        pytest.param("GET", "/live/orders?after=9&limit=1", "/live/orders", "200", id="events"),
        pytest.param(
            "GET", "/orders/999999", "/orders/{order_id}", "404", id="not found in a route"
        ),
        pytest.param(
            "GET", "/orders/seven", "/orders/{order_id}", "422", id="refused before the endpoint"
        ),
        pytest.param("DELETE", "/orders/7", "/orders/{order_id}", "405", id="wrong method"),
        pytest.param("GET", "/nowhere/7", "unmatched", "404", id="no route"),
        pytest.param("GET", "/partner/nowhere/7", "unmatched", "404", id="no route of the mount"),
    ],
)
def test_a_request_is_counted_under_its_whole_template(shop, method, path, route, status):
    labels = {"method": method, "route": route, "status": status}
    before = value_of(shop, "http_requests_total", **labels)
    assert str(shop.request(method, path).status_code) == status
    # A response is complete for the client a moment before it is for the server.
    eventually(
        lambda: value_of(shop, "http_requests_total", **labels) == before + 1, what=str(labels)
    )
    durations = value_of(shop, "http_request_duration_seconds_count", method=method, route=route)
    assert durations >= before + 1


def test_no_raw_path_becomes_a_label(shop):
    def routes():
        return {sample.labels["route"] for sample in scrape(shop) if "route" in sample.labels}

    for path in ("/catalogue/products/7", "/nowhere/7", "/static/shop.css"):
        shop.get(path)
    eventually(lambda: "/catalogue/products/{product_id}" in routes(), what="the route of products")
    assert [route for route in routes() if re.search(r"\d|nowhere|BOO|shop\.css", route)] == []


def test_an_uncaught_error_is_counted_by_its_class(shop):
    labels = {"method": "GET", "route": "/trouble/error", "exception": "DeliberateError"}
    before = value_of(shop, "perf_request_exceptions_total", **labels)
    shop.get("/trouble/error", headers={"Connection": "close"})
    eventually(
        lambda: value_of(shop, "perf_request_exceptions_total", **labels) == before + 1,
        what="the error is counted",
    )


def test_the_shop_counts_its_orders(shop):
    category = shop.get("/catalogue/products/1701").json()["category"]
    before = value_of(shop, "orders_created_total", category=category)
    wait_until(shop, place_order(shop, (1701, 1), (1702, 5))["id"], "confirmed")
    assert value_of(shop, "orders_created_total", category=category) == before + 1


def test_the_shop_times_its_report(shop):
    labels = {"name": "report.sales", "category": "db"}
    before = value_of(shop, "perf_timer_seconds_count", **labels)
    timing = shop.get("/reports/sales").headers["server-timing"]
    assert value_of(shop, "perf_timer_seconds_count", **labels) == before + 1
    assert re.search(r"\bdb;dur=[\d.]+", timing), timing


def test_a_setting_from_the_environment_counts(shop):
    """The fixture's server has PERFORMANCE_METRICS_SERVER_TIMING set."""
    assert "total;dur=" in shop.get("/catalogue/products/7").headers["server-timing"]


def test_the_summary_is_for_those_with_the_token(shop):
    assert shop.get("/_perf/summary").status_code == 401
    wrong = {"Authorization": "Bearer not-the-token"}
    assert shop.get("/_perf/summary", headers=wrong).status_code == 401
    right = {"Authorization": f"Bearer {TOKEN}"}
    summary = shop.get("/_perf/summary", headers=right)
    assert summary.status_code == 200
    assert "/catalogue/products/{product_id}" in summary.text
