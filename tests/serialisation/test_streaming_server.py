"""StreamingJSONResponse under a real server: memory, slow clients, those that leave, errors."""

import gzip
import json
import time
import tracemalloc

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Route

from perf_middleware import StreamingJSONResponse
from tests.http.servers import Journal, Server, serving
from tests.http.wire import eventually, http_request

ITEM = {"text": "x" * 1_000}
ITEM_BYTES = len(json.dumps(ITEM, separators=(",", ":"))) + 1
MANY = 60_000  # of 1 kB: far more than the bounds below
# What the kernel holds for a client on loopback that does not read, both ends together.
SOCKET_BYTES_MAX = 16 << 20
HELD_BYTES_MAX = 2 << 20
KINDS = pytest.mark.parametrize("kind", ["async", "sync"])


class Source:
    """Items without end, or `count` of them; notes how many were taken, and that it was closed."""

    def __init__(self, journal, count=MANY, error=None):
        self.taken = 0
        self._journal = journal
        self._count = count
        self._error = error

    async def asynchronously(self):
        try:
            for _ in range(self._count):
                self.taken += 1
                yield dict(ITEM)
            if self._error is not None:
                raise self._error
        finally:
            self._journal.note("closed", self.taken)

    def synchronously(self):
        try:
            for _ in range(self._count):
                self.taken += 1
                yield dict(ITEM)
            if self._error is not None:
                raise self._error
        finally:
            self._journal.note("closed", self.taken)

    def items(self, kind):
        return self.asynchronously() if kind == "async" else self.synchronously()


def app_of(source, kind, middleware=()):
    async def rows(_):
        return StreamingJSONResponse(source.items(kind))

    return Starlette(routes=[Route("/rows", rows)], middleware=middleware)


def peak_bytes(act):
    """The most that Python allocated over what was there before `act()`."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        act()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@KINDS
def test_a_list_too_large_for_memory_goes_out_in_bounded_memory(kind):
    journal = Journal()
    source = Source(journal)
    received = 0

    def act():
        nonlocal received
        with server.connect() as wire:
            wire.send(http_request("GET", "/rows"))
            while data := wire.read_some():
                received += len(data)

    server = Server(app_of(source, kind))
    with serving(server):
        assert peak_bytes(act) < HELD_BYTES_MAX
    assert received > MANY * ITEM_BYTES
    assert journal.about("closed") == [MANY]


@KINDS
def test_a_slow_client_holds_its_source_back(kind):
    journal = Journal()
    source = Source(journal, count=10 * MANY)
    server = Server(app_of(source, kind))

    def stands_still():
        before = source.taken
        time.sleep(0.2)
        return source.taken == before

    def act():
        with server.connect() as wire:
            wire.send(http_request("GET", "/rows"))
            wire.read_until(b'[{"text"')
            eventually(stands_still, what="a source that is held back")
            assert source.taken * ITEM_BYTES < SOCKET_BYTES_MAX
            wire.abort()
        journal.wait("closed")

    with serving(server):
        assert peak_bytes(act) < HELD_BYTES_MAX
    assert journal.about("closed") == [source.taken]
    assert not [line for line in server.log.lines() if "ERROR" in line]


@KINDS
def test_an_error_before_the_first_piece_is_an_ordinary_500(kind):
    journal = Journal()
    server = Server(app_of(Source(journal, count=3, error=RuntimeError("broke")), kind))
    with serving(server):
        answer = server.exchange(http_request("GET", "/rows"))
        server.wait_logged("RuntimeError('broke',)")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert answer.endswith(b"\r\n\r\nInternal Server Error")


@KINDS
def test_an_error_in_the_middle_leaves_a_body_without_its_end(kind):
    journal = Journal()
    server = Server(app_of(Source(journal, count=1_000, error=RuntimeError("broke")), kind))
    with serving(server):
        answer = server.exchange(http_request("GET", "/rows"))
        server.wait_logged("RuntimeError('broke',)")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\ntransfer-encoding: chunked\r\n" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert journal.about("closed") == [1_000]


@KINDS
def test_it_can_be_compressed_on_its_way(kind):
    source = Source(Journal(), count=2_000)
    server = Server(app_of(source, kind, [Middleware(GZipMiddleware)]))
    with serving(server), server.connect() as wire:
        wire.send(http_request("GET", "/rows", ("Accept-Encoding", "gzip")))
        head = wire.read_until(b"\r\n\r\n")
        body = b""
        while size := int(wire.read_until(b"\r\n"), 16):
            body += wire.read_exactly(size)
            wire.read_until(b"\r\n")
    assert b"\r\ncontent-encoding: gzip\r\n" in head
    assert json.loads(gzip.decompress(body)) == [ITEM] * 2_000
