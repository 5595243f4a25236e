"""The shop and its database: what is counted once, what repeats, what a stream holds."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2

from tests.examples.conftest import TOKEN
from tests.examples.figures import value_of
from tests.examples.servers import eventually
from tests.examples.shop import place_order, stock_of, wait_until

OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
STREAMS = 20  # more than the pool has connections
LAZY = re.compile(r"repeated statement: GET /trouble/n-plus-one ran .*")


def lent(shop: httpx2.Client) -> float:
    return value_of(shop, "perf_database_pool_checked_out", database="main")


def test_bestsellers_are_counted_once_until_something_is_sold(shop):
    def counted() -> float:
        name = "perf_query_cache_misses_total"
        return value_of(shop, name, query="bestsellers")

    before = counted()
    reports = [shop.get("/reports/bestsellers?per_category=1").json() for _ in range(3)]
    assert reports[0] == reports[1] == reports[2]
    assert counted() == before + 1
    best = reports[0][0]
    order = place_order(shop, (best["product_id"], 1))
    wait_until(shop, order["id"], "confirmed")  # the last of its commits
    after = shop.get("/reports/bestsellers?per_category=1").json()[0]
    assert after == best | {"units": best["units"] + 1}
    assert counted() == before + 2


def test_orders_for_one_product_all_come_through(shop):
    before = stock_of(shop, 1911)
    with ThreadPoolExecutor(10) as clients:
        list(clients.map(lambda _: place_order(shop, (1911, 1)), range(10)))
    assert stock_of(shop, 1911) == before - 10


def test_the_lazy_page_is_told_once_with_its_line_and_its_twin_not_at_all(shop, shop_server):
    pages = [shop.get("/trouble/n-plus-one?orders=10") for _ in range(2)]
    twin = shop.get("/trouble/n-plus-one/fixed?orders=10")
    assert twin.json() == pages[0].json() == pages[1].json()
    assert '"11 statements"' in pages[0].headers["server-timing"]
    assert '"2 statements"' in twin.headers["server-timing"]
    told = eventually(lambda: LAZY.findall(shop_server.log()), what="it in the log")
    assert len(told) == 1
    assert re.search(r"routers/trouble\.py:\d+ in load_each_lazily: units \+= ", told[0])
    assert ".options(selectinload(Order.lines))" in told[0]
    assert "GET /trouble/n-plus-one/fixed ran" not in shop_server.log()
    seen = shop.get("/_perf/database/statements", headers=OPERATOR)
    assert "/trouble/n-plus-one" in seen.text


def test_what_each_order_asks_for_alone_is_one_statement(shop):
    fixed = shop.get("/trouble/n-plus-one/fixed?orders=10")
    figure = {"batch": "order_units"}
    calls = value_of(shop, "perf_batching_calls_total", **figure)
    keys = value_of(shop, "perf_batching_keys_total", **figure)
    batched = shop.get("/trouble/n-plus-one/batched?orders=10")
    assert batched.json() == fixed.json()
    assert '"2 statements"' in batched.headers["server-timing"]
    assert value_of(shop, "perf_batching_calls_total", **figure) == calls + 1
    assert value_of(shop, "perf_batching_keys_total", **figure) == keys + 10


def test_an_order_is_confirmed_by_the_task_queue(shop):
    figure = {"request": "POST /orders"}
    accepted = value_of(shop, "perf_background_accepted_total", **figure)
    wait_until(shop, place_order(shop, (1912, 1))["id"], "confirmed")
    assert value_of(shop, "perf_background_accepted_total", **figure) == accepted + 1


def test_streams_of_stock_hold_no_connection(shop, shop_server):
    path = "/live/stock/1912?limit=2"
    before = stock_of(shop, 1912)
    begun = threading.Semaphore(0)

    def follow(_: int) -> list[int]:
        with httpx2.Client(base_url=shop_server.url, timeout=120) as client, client.sse(path) as it:
            stocks = []
            for event in it:
                if event.event == "stock":
                    stocks.append(event.json()["stock"])
                    begun.release()
            return stocks

    with ThreadPoolExecutor(STREAMS) as clients:
        streams = clients.map(follow, range(STREAMS))
        for _ in range(STREAMS):
            assert begun.acquire(timeout=60)
        eventually(lambda: lent(shop) == 0, what="no connection is lent")
        assert shop.get("/orders/7").status_code == 200
        place_order(shop, (1912, 3))
        assert list(streams) == [[before, before - 3]] * STREAMS
    assert "Traceback" not in shop_server.log()


def test_a_stream_of_no_product_is_not_found(shop):
    assert shop.get("/live/stock/999999").status_code == 404
