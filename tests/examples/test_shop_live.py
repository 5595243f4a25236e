"""The shop's streams and its websocket: what is sent arrives, one by one, as it happens."""

import time

import pytest
from websockets.exceptions import ConnectionClosed

from tests.examples.figures import value_of
from tests.examples.servers import eventually
from tests.examples.shop import place_order, wait_until, watching


def test_each_event_arrives_before_the_next_one_happens(shop):
    with shop.sse("/live/orders") as stream:
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        events = iter(stream)
        order = place_order(shop, (1801, 1))
        for status in ("placed", "confirmed"):
            event = next(events)
            assert (event.event, event.json()["order_id"]) == (status, order["id"])
        for status in ("shipped", "delivered"):
            shop.patch(f"/orders/{order['id']}", json={"status": status})
            assert next(events).event == status


def test_a_stream_ends_after_its_limit(shop):
    with shop.sse("/live/orders?after=10&limit=3") as stream:
        assert [event.id for event in stream] == ["11", "12", "13"]


def test_a_stream_goes_on_where_the_client_left(shop):
    headers = {"Last-Event-ID": "4711"}
    with shop.sse("/live/orders?after=10&limit=2", headers=headers) as stream:
        assert [event.id for event in stream] == ["4712", "4713"]


def test_lines_arrive_as_they_are_sent(shop):
    """Gathered somewhere on the way, they would all arrive at once."""
    count, interval_s = 4, 0.5
    with shop.stream("GET", f"/live/ticks?count={count}&interval_s={interval_s}") as response:
        assert response.headers["content-type"] == "application/jsonl"
        arrivals_s = [time.perf_counter() for line in response.iter_lines() if line]
    assert len(arrivals_s) == count
    assert arrivals_s[-1] - arrivals_s[0] > interval_s  # sent over three times as long


def test_an_export_comes_in_chunks_of_unknown_number(shop):
    with shop.stream("GET", "/reports/orders.csv") as response:
        assert response.headers["transfer-encoding"] == "chunked"
        assert "content-length" not in response.headers
        chunks = list(response.iter_raw())
    assert len(chunks) > 10
    assert max(map(len, chunks)) < sum(map(len, chunks)) / 2


def test_a_client_that_leaves_a_stream_leaves_nothing_behind(shop, shop_server):
    # Of the events it has seen all there are: FastAPI 0.165 logs an error of its own for a client
    # that leaves while events wait for it (fastapi/fastapi discussion 15725).
    with shop.stream("GET", "/live/orders") as response:
        assert response.status_code == 200
    for path in ("/reports/orders.csv", "/live/ticks?interval_s=1"):
        with shop.stream("GET", path) as response:
            next(response.iter_raw())
    assert shop.get("/orders/1").status_code == 200
    # The one in progress is the scrape itself.
    eventually(lambda: value_of(shop, "http_requests_in_progress") == 1, what="all have ended")
    assert "Traceback" not in shop_server.log()


def test_a_websocket_tells_an_orders_story_to_its_end(shop, shop_server):
    order = place_order(shop, (1802, 1))
    wait_until(shop, order["id"], "confirmed")
    with watching(shop_server, order["id"]) as updates:
        assert '"placed"' in updates.recv(20)
        assert '"confirmed"' in updates.recv(20)
        updates.send("what a client says does no harm")
        for status in ("shipped", "delivered"):
            shop.patch(f"/orders/{order['id']}", json={"status": status})
            assert f'"{status}"' in updates.recv(20)
        with pytest.raises(ConnectionClosed) as closed:
            updates.recv(20)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, "the order is delivered")


def test_a_websocket_for_no_order_is_closed_with_the_reason(shop_server):
    with (
        watching(shop_server, 999_999) as updates,
        pytest.raises(ConnectionClosed) as closed,
    ):
        updates.recv(20)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4404, "there is no order 999999")


def test_a_client_may_leave_a_websocket(shop, shop_server):
    order = place_order(shop, (1803, 1))
    with watching(shop_server, order["id"]) as updates:
        updates.recv(20)
    wait_until(shop, order["id"], "confirmed")
    assert "Traceback" not in shop_server.log()
