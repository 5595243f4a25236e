"""One Redis for the tests of a module, and one that a test may break."""

import pytest

from tests.fleet.servers import RedisServer


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    """A server that no test may harm."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture
def own_redis(tmp_path):
    """A server that this test alone has, and may break."""
    server = RedisServer(tmp_path / "own").start()
    yield server
    server.stop()
