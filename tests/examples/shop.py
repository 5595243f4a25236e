"""What tests of the shop do over and over."""

import re
from typing import Any

import httpx2
from websockets.sync.client import ClientConnection, connect

from tests.examples.servers import ServerProcess, eventually


def place_order(shop: httpx2.Client, *lines: tuple[int, int], customer_id: int = 1) -> Any:
    """The new order of (product, quantity) lines, as the shop answered it."""
    response = shop.post(
        "/orders",
        json={
            "customer_id": customer_id,
            "lines": [
                {"product_id": product_id, "quantity": quantity} for product_id, quantity in lines
            ],
        },
    )
    assert response.status_code == 201, response.text
    return response.json()


def wait_until(shop: httpx2.Client, order_id: int, status: str) -> None:
    eventually(
        lambda: shop.get(f"/orders/{order_id}").json()["status"] == status,
        what=f"order {order_id} is {status}",
    )


def stock_of(shop: httpx2.Client, product_id: int) -> int:
    return int(shop.get(f"/catalogue/products/{product_id}").json()["stock"])


def watching(server: ServerProcess, order_id: int) -> ClientConnection:
    """The websocket that tells an order's story."""
    address = re.sub("^http", "ws", f"{server.url}/live/orders/{order_id}")
    return connect(address, open_timeout=120, close_timeout=120)
