"""Passwords, TLS and sockets by URL; a secret is never told."""

import asyncio
import logging
import ssl
import subprocess

import pytest

from tests.fleet.processes import Load, Pages, Process, running, until
from tests.fleet.proxy import Proxy
from tests.fleet.servers import RedisServer

SECRET = "open-sesame-4711"

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_set")]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """The files of a certificate for localhost, signed by itself, and of its key."""
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
            "-keyout", str(key), "-out", str(certificate),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@pytest.fixture
def closed_redis(tmp_path):
    """A server that asks for a password, and knows a user who may do just what is needed."""
    server = RedisServer(
        tmp_path / "closed", "--requirepass", SECRET, "--user", "cache", "on", f">{SECRET}",
        "~{app:*", "&{app:*", "+@all", "-@dangerous",
    )  # fmt: skip
    yield server.start()
    server.stop()


async def share(*urls, **redis):
    """Two processes share through these URLs."""
    pages = Pages()
    one, two = (Process(pages, url, **redis) for url in (urls[0], urls[-1]))
    async with running(one, two):
        await one.reads("/p")
        await one.settled()
        assert await two.reads("/p") == (b"/p 0", True)
        pages.change("/p")
        await one.cache.purge(url="/p")
        await until(lambda: not two.cache.store.of_path(b"/p"))
        assert (await two.reads("/p"))[0] == b"/p 1"


@pytest.mark.parametrize("who", [f":{SECRET}", f"default:{SECRET}", f"cache:{SECRET}"])
async def test_a_password_or_a_user_comes_with_the_url(who, closed_redis):
    await share(closed_redis.url.replace("//", f"//{who}@"))


@pytest.mark.parametrize("who", ["", f":{SECRET}-not@", f"nobody:{SECRET}@"])
async def test_a_wrong_password_is_told_once_without_it_and_harms_no_request(
    who, closed_redis, caplog
):
    caplog.set_level(logging.DEBUG)
    process = Process(Pages(), closed_redis.url.replace("//", f"//{who}"))
    async with running(process, up=False):
        async with Load(process) as load:
            await load.more(100)
        # It is tried again and again, and told once.
        await until(lambda: process.fleet.changes["down"] == 1)
        await asyncio.sleep(0.5)
        assert process.state == "degraded"
        told = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert len(told) == 1
        assert f"127.0.0.1:{closed_redis.port}" in told[0]
        assert "uthent" in told[0] or "WRONGPASS" in told[0]
        everything = f"{caplog.text} {process.perf.status()} {process.perf.settings!r}"
        assert SECRET not in everything


async def test_a_password_that_is_changed_below_shuts_out_once_and_lets_in_again(
    closed_redis, caplog
):
    caplog.set_level(logging.INFO, "perf_middleware.redis")
    process = Process(Pages(), closed_redis.url.replace("//", f"//cache:{SECRET}@"))
    admin = Process(Pages(), closed_redis.url.replace("//", f"//:{SECRET}@"))
    async with running(process, admin):
        await admin.link.command("ACL", "SETUSER", "cache", "resetpass", ">other")
        await admin.link.command("CLIENT", "KILL", "USER", "cache")
        await until(lambda: not process.is_up)
        assert (await process.get("/p")).status == 200
        await admin.link.command("ACL", "SETUSER", "cache", f">{SECRET}")
        await until(lambda: process.is_up)
    levels = [r.levelname for r in caplog.records if r.name == "perf_middleware.redis"]
    assert levels.count("WARNING") == 1
    assert SECRET not in caplog.text


def tls_of(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


async def test_tls_is_spoken_by_url_and_the_certificate_is_looked_at(redis_server, certificate):
    """The server's side of TLS is a proxy's: not every binary of a server has it."""
    async with Proxy(redis_server.port, ssl=tls_of(certificate)) as proxy:
        url = f"rediss://localhost:{proxy.port}/0?ssl_ca_certs={certificate[0]}"
        await share(url, namespace="tls", timeout_s=2, connect_timeout_s=5)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        pytest.param("rediss://localhost:{port}/0", "CERTIFICATE_VERIFY_FAILED", id="unknown"),
        pytest.param(
            "rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}", "CERTIFICATE_VERIFY_FAILED",
            id="of another host",
        ),
        pytest.param("redis://localhost:{port}/0", "", id="no TLS to a server that speaks it"),
        pytest.param("rediss://localhost:{port}/0?ssl_ca_certs=/none", "", id="no such file"),
        pytest.param("redis://localhost:{port}/0?colour=blue", "colour", id="no such option"),
    ],
)  # fmt: skip
async def test_what_is_not_to_be_trusted_is_not_used(url, why, redis_server, certificate, caplog):
    loop = asyncio.get_running_loop()
    failures = []
    loop.set_exception_handler(lambda _, context: failures.append(context))  # the server's side
    async with Proxy(redis_server.port, ssl=tls_of(certificate)) as proxy:
        url = url.format(port=proxy.port, certificate=certificate[0])
        process = Process(Pages(), url)
        async with running(process, up=False):
            assert not process.is_up
            assert (await process.get("/p")).status == 200
            assert process.state == "degraded"
            assert why in process.link.why_down
            warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
            assert len(warnings) == 1


async def test_a_socket_in_the_file_system_is_reached_by_url(tmp_path):
    path = tmp_path / "r.sock"
    server = RedisServer(tmp_path / "unix", "--unixsocket", str(path))
    server.start()
    try:
        assert path.is_socket()
        await share(f"unix://{path}")
    finally:
        server.stop()
