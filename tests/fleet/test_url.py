"""What a Redis URL may be, and what of it may be shown."""

import asyncio

import pytest
from starlette.applications import Starlette

from perf_middleware import install
from perf_middleware.errors import SettingsError
from perf_middleware.fleet.url import check_url, for_connecting, shown
from perf_middleware.settings import Settings


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1",
        "redis://127.0.0.1:6379/3",
        "redis://user:p%40ss@cache.example:6380/0",
        "rediss://[::1]:6379",
        "unix:///run/redis.sock",
        "redis://h?db=3&client_name=shop",
        "rediss://h/0?ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=none",
    ],
)
def test_a_url_of_a_server_is_taken(url):
    check_url(url)


@pytest.mark.parametrize(
    ("url", "cluster", "problem"),
    [
        pytest.param("http://h", False, "must begin with redis://", id="another scheme"),
        pytest.param("redis://", False, "names no host", id="no host"),
        pytest.param("redis://h:99999", False, "is no URL", id="a port that there is not"),
        pytest.param("redis://h:0", False, "has no port", id="port 0"),
        pytest.param("redis://h/one", False, "number of a database", id="a database by name"),
        pytest.param("unix://", False, "names no socket", id="no socket"),
        pytest.param("redis://h/1", True, "no database but 0", id="a cluster's database"),
        pytest.param("unix:///s", True, "not reached over a socket", id="a cluster's socket"),
    ],
)
def test_what_is_none_is_refused_in_a_sentence(url, cluster, problem):
    with pytest.raises(ValueError, match=problem):
        check_url(url, cluster=cluster)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@h",
        "redis://user:hunter2@h/one",
        "redis://:hunter2@h:99999",
    ],
)
def test_a_wrong_url_stops_the_start_and_its_password_is_not_told(url):
    with pytest.raises(SettingsError) as caught:
        Settings(redis={"url": url})
    assert "redis={'url': …}" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://user:hunter2@h:6380/2?x=y", "redis://h:6380/2"),
        ("rediss://h", "rediss://h:6379"),
        ("redis://[::1]/0", "redis://[::1]:6379/0"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock"),
    ],
)
def test_what_is_shown_has_neither_password_nor_options(url, text):
    assert shown(url) == text


def test_settings_never_show_the_url():
    settings = Settings(redis={"url": "redis://:hunter2@h"})
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(list(settings.effective()))


@pytest.mark.parametrize(
    ("url", "left"),
    [
        ("redis://:p@h:1/2", "redis://:p@h:1/2"),
        ("redis://h?decode_responses=true&socket_connect_timeout=5", "redis://h"),
        ("unix:///s?db=3&protocol=2&max_connections=x", "unix:///s?db=3"),
        ("rediss://h?ssl_ca_certs=%2Fca.pem&timeout=1", "rediss://h?ssl_ca_certs=%2Fca.pem"),
    ],
)
def test_what_other_clients_are_told_by_the_same_url_is_left_out(url, left):
    check_url(url)
    assert for_connecting(url) == left


OPTIONS = "db=3&decode_responses=true&socket_connect_timeout=5&protocol=2&health_check_interval=x"


def test_redis_is_used_by_a_url_that_other_clients_share(redis_server):
    """A fixed bug: with one of these it was never connected to (`got multiple values for`)."""
    url = f"redis://127.0.0.1:{redis_server.port}?{OPTIONS}"

    async def main():
        perf = install(Starlette(), Settings(redis={"url": url, "required": True}))
        async with perf.running():
            assert perf.status()["resources"]["redis"]["detail"]["up"]

    asyncio.run(main())
