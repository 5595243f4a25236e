"""One server of each example for each test module, and clients for it."""

from collections.abc import Iterator

import httpx2
import pytest

from tests.examples.servers import ServerProcess, serving_app

TOKEN = "a-token-for-tests"
CLIENT_S_MAX = 120.0


@pytest.fixture(scope="module")
def shop_server() -> Iterator[ServerProcess]:
    env = {"PERFORMANCE_DASHBOARD_TOKEN": TOKEN, "PERFORMANCE_METRICS_SERVER_TIMING": "true"}
    with serving_app("examples.fastapi_app.app:app", env=env) as server:
        yield server


@pytest.fixture(scope="module")
def shop(shop_server: ServerProcess) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=shop_server.url, timeout=CLIENT_S_MAX) as client:
        yield client
