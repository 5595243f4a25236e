"""Whatever an untrusted peer writes into its head, it stays the same client: over real sockets."""

import socket

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from perf_middleware import Settings, install
from tests.http.servers import Server, serving
from tests.http.wire import UPGRADE

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
HUGE = b", ".join(b"198.51.%d.%d" % divmod(number, 256) for number in range(3_000))

SPOOFS = [
    pytest.param(b"X-Forwarded-For: 198.51.100.7", id="x-forwarded-for"),
    pytest.param(b"x-forwarded-FOR: 198.51.100.7\r\nX-Forwarded-For: 198.51.100.8", id="two lines"),
    pytest.param(b"X-Forwarded-For:\r\nX-Forwarded-For: 198.51.100.7", id="an empty line first"),
    pytest.param(b"X-Forwarded-For: 198.51.100.7,\r\n 198.51.100.8", id="folded"),
    pytest.param(b"X-Forwarded-For:\r\n 198.51.100.8", id="folded at once"),
    pytest.param(b"X-Forwarded-For : 198.51.100.7", id="space before the colon"),
    pytest.param(b"X-Forwarded-For: " + HUGE, id="huge"),
    pytest.param(b"X-Forwarded-For: 127.0.0.1", id="as if from the host itself"),
    pytest.param(b"X-Forwarded-For: \xff\xfe\t;=\"", id="garbage"),
    pytest.param(b"X_Forwarded_For: 198.51.100.7", id="underscores"),
    pytest.param(b"Forwarded: for=198.51.100.7", id="forwarded"),
    pytest.param(b'Forwarded: for="[2001:db8::1]:80";by=127.0.0.1\r\nX-Forwarded-For: 198.51.100.7',
                 id="both"),
    pytest.param(b"X-Real-IP: 198.51.100.7", id="x-real-ip"),
    pytest.param(b"CF-Connecting-IP: 198.51.100.7\r\nTrue-Client-IP: 198.51.100.7\r\n"
                 b"X-Client-IP: 198.51.100.7\r\nX-Cluster-Client-IP: 198.51.100.7\r\n"
                 b"Fastly-Client-IP: 198.51.100.7\r\nX-Envoy-External-Address: 198.51.100.7",
                 id="what vendors write"),
    pytest.param(b"X-Forwarded-Host: b\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 1\r\n"
                 b"Via: 1.1 b", id="the others of their kind"),
]  # fmt: skip


async def hello(request):
    return PlainTextResponse(request.client.host)


def limited(*, trusted_proxies=(), **options):
    app = Starlette(routes=[Route("/", hello)])
    install(
        app,
        Settings(ratelimit={"quotas": ["1/hour"]}, callers={"trusted_proxies": trusted_proxies}),
    )
    return Server(app, **options)


def status_of(server, raw, peer="127.0.0.1"):
    address = ("127.0.0.1", server.port)
    with socket.create_connection(address, timeout=120, source_address=(peer, 0)) as connection:
        connection.sendall(raw)
        answer = connection.makefile("rb").read()
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize(
    ("options", "peer"),
    [
        pytest.param({"proxy_headers": False}, "127.0.0.1", id="no proxy headers"),
        pytest.param({}, "127.0.0.2", id="uvicorn's default, a peer that it does not trust"),
    ],
)
def test_no_header_of_an_untrusted_peer_changes_its_key(http, options, peer):
    server = limited(http=http, **options)
    with serving(server):
        assert status_of(server, HEAD + b"\r\n", peer) == 200
        for spoof in SPOOFS:
            (field,) = spoof.values
            # A server may find the head broken; nobody gets a fresh quota by it.
            assert status_of(server, HEAD + field + b"\r\n\r\n", peer) in {400, 429}, spoof.id
        for line in (b"GET http://198.51.100.7/ HTTP/1.1", b"GET / HTTP/1.0"):
            assert status_of(server, HEAD.replace(b"GET / HTTP/1.1", line) + b"\r\n", peer) == 429
        upgrade = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE).encode()
        raw = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.7\r\n" + upgrade
        assert status_of(server, raw + b"\r\n", peer) == 429
        assert status_of(server, HEAD + b"\r\n", "127.0.0.3") == 200  # another peer is another one


def test_uvicorn_believes_the_host_itself_by_default():
    server = limited()
    with serving(server):
        assert status_of(server, HEAD + b"\r\n") == 200
        assert status_of(server, HEAD + b"\r\n") == 429
        # So a client is what a process on this host says, and only the end of what it says.
        spoofed = b"X-Forwarded-For: %b, 203.0.113.9\r\n\r\n"
        assert status_of(server, HEAD + spoofed % b"198.51.100.7") == 200
        assert status_of(server, HEAD + spoofed % b"198.51.100.8") == 429
        # Nothing else is read.
        assert status_of(server, HEAD + b"Forwarded: for=198.51.100.7\r\n\r\n") == 429
        assert status_of(server, HEAD + b"X-Real-IP: 198.51.100.7\r\n\r\n") == 429


@pytest.mark.parametrize("proxy_headers", [True, False], ids=["uvicorn reads it, too", "we alone"])
def test_behind_a_declared_proxy_only_what_it_has_written_counts(proxy_headers):
    server = limited(trusted_proxies=["127.0.0.1"], proxy_headers=proxy_headers)
    with serving(server):
        fields = [b"", b"198.51.100.7, ", b"198.51.100.8, ", b'"', b"unknown, ", b"_x,,", HUGE]
        # What the client sent, and the proxy's word behind it; or a line of its own for that.
        told = [b"X-Forwarded-For: " + field + b"203.0.113.9\r\n" for field in fields[:3]]
        told += [b"X-Forwarded-For: " + field + b", 203.0.113.9\r\n" for field in fields[3:]]
        told += [b"X-Forwarded-For: " + fields[1] + b"\r\nX-Forwarded-For: 203.0.113.9\r\n"]
        seen = [status_of(server, HEAD + each + b"\r\n") for each in told]
        assert seen == [200] + [429] * (len(told) - 1)
