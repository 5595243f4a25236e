"""The shop's routes, over a real server."""

import csv
import io
import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import groupby, pairwise

import pytest

from tests.examples.figures import value_of
from tests.examples.servers import eventually
from tests.examples.shop import place_order, stock_of, wait_until

LAMPS = 100

# uvicorn cuts the connection after an uncaught error: it must not be used for what comes next.
ONE_REQUEST = {"Connection": "close"}

NEW_PRODUCT = {
    "sku": "LAM-90001",
    "name": "Quiet Cork Desk Lamp",
    "category": "lamps",
    "price_cents": 4_950,
    "stock": 12,
}


def test_every_address_on_the_first_page_answers(shop):
    page = shop.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    links = re.findall(r'(?:href|src)="(/[^"]*)"', page.text.replace("&amp;", "&"))
    assert len(links) > 12
    for link in links:
        expected = 500 if link == "/trouble/error" else 200
        response = shop.get(link, headers=ONE_REQUEST)
        assert response.status_code == expected, link


def test_the_api_describes_itself(shop):
    paths = shop.get("/openapi.json").json()["paths"]
    assert {"/catalogue/products/{product_id}", "/orders", "/live/orders"} <= set(paths)
    assert "/partner/stock/{sku}" not in paths
    assert list(shop.get("/partner/openapi.json").json()["paths"]) == ["/stock/{sku}"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("GET", "/nowhere", 404, id="no such route"),
        pytest.param("GET", "/catalogue/nowhere", 404, id="none in the nested router"),
        pytest.param("GET", "/partner/nowhere", 404, id="none in the mounted app"),
        pytest.param("GET", "/static/nowhere", 404, id="no such file"),
        pytest.param("GET", "/catalogue/products/999999", 404, id="no such product"),
        pytest.param("GET", "/orders/999999", 404, id="no such order"),
        pytest.param("GET", "/partner/stock/XXX-00000", 404, id="no such stock"),
        pytest.param("PATCH", "/catalogue/products/999999", 404, id="changing no product"),
        pytest.param("DELETE", "/catalogue/products/7", 405, id="method of a nested route"),
        pytest.param("POST", "/partner/stock/BOO-00003", 405, id="method of the mounted app"),
        pytest.param("POST", "/static/shop.css", 405, id="method of a file"),
        pytest.param("GET", "/catalogue/products/seven", 422, id="id is no number"),
        pytest.param("GET", "/catalogue/products/0", 422, id="id below 1"),
        pytest.param("GET", f"/catalogue/products/{2**63}", 422, id="id above all"),
        pytest.param("GET", "/catalogue/products?limit=0", 422, id="page of nothing"),
        pytest.param("GET", "/catalogue/products?limit=201", 422, id="page too long"),
        pytest.param("GET", "/catalogue/products?after=7", 422, id="place that is none"),
        pytest.param("GET", "/catalogue/products?colour=red", 422, id="filter unknown"),
        pytest.param("GET", "/catalogue/search", 422, id="search for nothing"),
        pytest.param("GET", "/orders?status=lost", 422, id="status unknown"),
        pytest.param("GET", "/partner/stock/7", 422, id="sku that is none"),
        pytest.param("GET", "/trouble/slow?seconds=31", 422, id="slower than allowed"),
        pytest.param("GET", "/trouble/block?seconds=nan", 422, id="no number to sleep"),
        pytest.param("GET", "/live/ticks?interval_s=0", 422, id="ticks without pause"),
    ],
)
def test_a_wrong_request_is_told_so(shop, method, path, status):
    body = {"json": {}} if method == "PATCH" else {}
    assert shop.request(method, path, **body).status_code == status


def test_pages_follow_each_other_without_gap_or_repeat(shop):
    pages, after = [], None
    while True:
        query = {"category": "lamps", "sort": "price", "limit": 30}
        page = shop.get("/catalogue/products", params=query | ({"after": after} if after else {}))
        pages.append(page.json()["items"])
        after = page.json()["next"]
        if after is None:
            break
    lamps = [product for page in pages for product in page]
    assert [len(page) for page in pages][:3] == [30, 30, 30]
    assert len({lamp["id"] for lamp in lamps}) == len(lamps) >= LAMPS
    assert {lamp["category"] for lamp in lamps} == {"lamps"}
    positions = [(lamp["price_cents"], lamp["id"]) for lamp in lamps]
    assert positions == sorted(positions)


def test_filters_hold_for_every_product(shop):
    query = {"price_cents_min": 5_000, "price_cents_max": 6_000, "in_stock": True, "limit": 200}
    products = shop.get("/catalogue/products", params=query).json()["items"]
    assert products
    assert all(5_000 <= product["price_cents"] <= 6_000 for product in products)
    assert all(product["stock"] > 0 for product in products)


def test_search_puts_names_that_begin_with_the_words_first(shop):
    found = [product["name"] for product in shop.get("/catalogue/search?q=sturdy oak").json()]
    assert found
    assert found[0].startswith("Sturdy Oak")
    assert shop.get("/catalogue/search", params={"q": "%%"}).json() == []


def test_a_created_product_is_where_location_says(shop):
    created = shop.post("/catalogue/products", json=NEW_PRODUCT)
    assert created.status_code == 201
    product_id = created.json()["id"]
    assert created.headers["location"] == f"/catalogue/products/{product_id}"
    assert shop.get(created.headers["location"]).json() == created.json()
    assert shop.post("/catalogue/products", json=NEW_PRODUCT).status_code == 409


@pytest.mark.parametrize(
    "wrong",
    [
        {"sku": "lamp"},
        {"name": ""},
        {"price_cents": 0},
        {"stock": -1},
        {"category": "nowhere"},
        {"colour": "red"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_product_is_refused(shop, wrong):
    new = NEW_PRODUCT | {"sku": "LAM-90002"} | wrong
    assert shop.post("/catalogue/products", json=new).status_code == 422
    assert shop.get("/partner/stock/LAM-90002").status_code == 404


def test_a_change_touches_only_what_it_names(shop):
    before = shop.get("/catalogue/products/1901").json()
    after = shop.patch("/catalogue/products/1901", json={"price_cents": 1_234}).json()
    assert after["price_cents"] == 1_234
    assert datetime.fromisoformat(after["updated_at"]) > datetime.fromisoformat(
        before["updated_at"]
    )
    changed = {"price_cents", "updated_at"}
    assert {name: value for name, value in after.items() if name not in changed} == {
        name: value for name, value in before.items() if name not in changed
    }
    assert shop.get("/catalogue/products/1901").json() == after


def test_a_bar_code_is_a_picture(shop):
    response = shop.get("/catalogue/products/7/barcode.svg")
    assert response.headers["content-type"] == "image/svg+xml"
    assert ">2000000000077</text>" in response.text


def test_an_order_takes_stock_and_is_confirmed_in_the_background(shop):
    before = stock_of(shop, 1902)
    price_cents = shop.get("/catalogue/products/1902").json()["price_cents"]
    response = shop.post(
        "/orders", json={"customer_id": 3, "lines": [{"product_id": 1902, "quantity": 2}]}
    )
    order = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/orders/{order['id']}"
    assert order["status"] == "placed"
    assert order["total_cents"] == 2 * price_cents
    assert stock_of(shop, 1902) == before - 2
    wait_until(shop, order["id"], "confirmed")


def test_a_cancelled_order_gives_its_stock_back_and_goes_no_further(shop):
    before = stock_of(shop, 1903)
    order = place_order(shop, (1903, 1), (1904, 1), (1903, 2))
    assert stock_of(shop, 1903) == before - 3
    wait_until(shop, order["id"], "confirmed")
    address = f"/orders/{order['id']}"
    assert shop.patch(address, json={"status": "delivered"}).status_code == 409
    assert shop.patch(address, json={"status": "cancelled"}).json()["status"] == "cancelled"
    assert stock_of(shop, 1903) == before
    assert shop.patch(address, json={"status": "shipped"}).status_code == 409
    assert shop.patch("/orders/999999", json={"status": "shipped"}).status_code == 404


@pytest.mark.parametrize(
    ("order", "status"),
    [
        pytest.param({"customer_id": 1, "lines": []}, 422, id="nothing"),
        pytest.param(
            {"customer_id": 999_999, "lines": [{"product_id": 1, "quantity": 1}]},
            422,
            id="nobody",
        ),
        pytest.param(
            {
                "customer_id": 1,
                "lines": [
                    {"product_id": 1905, "quantity": 1},
                    {"product_id": 999_999, "quantity": 1},
                ],
            },
            422,
            id="a thing that is not",
        ),
        pytest.param(
            {"customer_id": 1, "lines": [{"product_id": 1905, "quantity": 100}] * 5},
            409,
            id="more than there is",
        ),
    ],
)
def test_an_order_that_cannot_be_takes_nothing(shop, order, status):
    before = stock_of(shop, 1905)
    assert shop.post("/orders", json=order).status_code == status
    assert stock_of(shop, 1905) == before


def test_many_orders_at_once_all_come_through(shop):
    """Each needs a second connection for its confirmation: nobody may keep the first meanwhile."""
    with ThreadPoolExecutor(30) as clients:
        orders = list(clients.map(lambda number: place_order(shop, (number, 1)), range(1501, 1541)))
    assert len({order["id"] for order in orders}) == 40
    for order in orders:
        wait_until(shop, order["id"], "confirmed")


def test_orders_are_listed_newest_first(shop):
    first = shop.get("/orders", params={"status": "shipped", "limit": 5}).json()
    second = shop.get(
        "/orders", params={"status": "shipped", "limit": 5, "before": first["next"]}
    ).json()
    ids = [order["id"] for order in first["items"] + second["items"]]
    assert len(ids) == 10
    assert ids == sorted(ids, reverse=True)
    mine = shop.get("/orders", params={"customer_id": 17, "limit": 200}).json()
    assert {order["customer_id"] for order in mine["items"]} == {17}
    assert mine["next"] is None


def test_the_sales_report_adds_up_along_the_year(shop):
    report = shop.get("/reports/sales").json()
    assert len(report) == 20 * 12
    for _, rows in groupby(report, key=lambda row: row["category"]):
        months = list(rows)
        assert [row["month"] for row in months] == [f"2025-{month:02d}" for month in range(1, 13)]
        assert months[0]["running_revenue_cents"] == months[0]["revenue_cents"]
        for before, after in pairwise(months):
            grown = after["running_revenue_cents"] - before["running_revenue_cents"]
            assert grown == after["revenue_cents"]
    january = [row for row in report if row["month"] == "2025-01"]
    assert sorted(row["rank"] for row in january) == list(range(1, 21))
    assert shop.get("/reports/sales?year=2001").json() == []


def test_bestsellers_are_ranked_within_each_category(shop):
    report = shop.get("/reports/bestsellers?per_category=2").json()
    assert [row["rank"] for row in report] == [1, 2] * 20
    for first, second in zip(report[::2], report[1::2], strict=True):
        assert first["category"] == second["category"]
        assert first["units"] >= second["units"]


def test_the_export_is_complete_and_agrees_with_the_report(shop):
    newest = place_order(shop, (1906, 1))
    response = shop.get("/reports/orders.csv")
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"] == 'attachment; filename="orders.csv"'
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [int(row["id"]) for row in rows] == list(range(1, newest["id"] + 1))
    of_2025 = sum(
        int(row["total_cents"])
        for row in rows
        if row["placed_at"].startswith("2025-") and row["status"] != "cancelled"
    )
    assert of_2025 == sum(row["revenue_cents"] for row in shop.get("/reports/sales").json())


def test_files_are_served_with_validators_and_ranges(shop):
    whole = shop.get("/static/shop.css")
    assert whole.headers["content-type"] == "text/css; charset=utf-8"
    known = {"If-None-Match": whole.headers["etag"]}
    assert shop.get("/static/shop.css", headers=known).status_code == 304
    part = shop.get("/static/shop.css", headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, whole.content[:4])


def test_the_mounted_app_answers_from_the_same_database(shop):
    order = place_order(shop, (3, 1))
    assert order["lines"][0]["product_id"] == 3
    assert shop.get("/partner/stock/BOO-00003").json() == {
        "sku": "BOO-00003",
        "available": stock_of(shop, 3),
    }


def test_a_slow_request_holds_nobody_up(shop):
    with ThreadPoolExecutor(1) as other:
        slow = other.submit(shop.get, "/trouble/slow?seconds=3")
        eventually(lambda: value_of(shop, "http_requests_in_progress") == 2, what="it is on")
        assert shop.get("/catalogue/products/7").status_code == 200
        assert not slow.done()
        assert slow.result().json() == {"slept_s": 3.0}


def test_a_blocking_request_lasts_as_long_as_it_says(shop):
    started_s = time.perf_counter()
    assert shop.get("/trouble/block?seconds=0.2").json() == {"slept_s": 0.2}
    assert time.perf_counter() - started_s >= 0.2


def test_a_chatty_request_counts_its_statements(shop):
    assert shop.get("/trouble/chatty?orders=10").json()["statements"] == 11


def test_what_leaks_says_how_much(shop):
    first, second = (shop.get("/trouble/leak").json()["kept"] for _ in range(2))
    assert second == first + 1


def test_an_uncaught_error_is_a_500_and_the_next_request_is_fine(shop, shop_server):
    response = shop.get("/trouble/error", headers=ONE_REQUEST)
    assert (response.status_code, response.text) == (500, "Internal Server Error")
    eventually(  # it is logged once the answer is on its way
        lambda: "DeliberateError: raised on purpose" in shop_server.log(), what="it in the log"
    )
    assert shop.get("/catalogue/products/7").status_code == 200


def test_who_asks_too_often_is_told_when_to_come_again(shop):
    for _ in range(3):
        shop.get("/trouble/eager")
    refused = shop.get("/trouble/eager")
    assert refused.status_code == 429
    assert refused.json()["quota"] == "eager"
    assert 1 <= int(refused.headers["retry-after"]) <= 20


def test_what_takes_too_long_is_cut_off(shop):
    answer = shop.get("/trouble/late?seconds=20")
    assert (answer.status_code, answer.headers["content-type"]) == (504, "application/problem+json")
