"""Do no harm, after decoding: what a client reads is what the app sent, in every coding.

The rest of this suite compares to the byte, with a compression that encodes no type at all.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from perf_middleware import Settings
from tests.compression.stage import CODINGS, decoded
from tests.http.apps import outermost
from tests.http.conftest import KINDS
from tests.http.servers import Journal, Server, Twins, serving, with_bundle
from tests.http.test_answers import ETAG, FASTAPI, LAST_MODIFIED, SHARED
from tests.http.wire import http_request, masked

# What an answer may have otherwise than the bare one: documented in docs/compression.md.
OF_THE_CODING = (b"vary", b"content-encoding", b"content-length", b"transfer-encoding",
                 b"accept-ranges", b"etag")  # fmt: skip


@pytest.fixture(scope="module", params=["starlette", "starlette-h11", "fastapi", "callable"])
def encoding_twins(request: pytest.FixtureRequest, files: Path) -> Iterator[Twins]:
    """The bare app, and one whose compression does all it can."""
    kind = KINDS[request.param]
    settings = Settings(compression={"types": None, "minimum_bytes": 1, "adaptive": "off"})
    bare, installed = Journal(), Journal()
    app = kind.build(bare, files)
    with_ours = with_bundle(kind.build(installed, files), settings)
    twins = Twins(
        Server(outermost(app, bare), journal=bare, http=kind.http),
        Server(outermost(with_ours, installed), journal=installed, http=kind.http),
    )
    with serving(twins.bare, twins.installed):
        yield twins


def read(answer: bytes) -> tuple[bytes, list[tuple[bytes, bytes]], bytes, str | None]:
    """Status line, fields without the coding's own, the decoded body, and the coding."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status_line, *lines = head.split(b"\r\n")
    fields = [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines)]
    if (b"transfer-encoding", b"chunked") in fields:
        body = b"".join(_chunks(body))
    coding = next((value.decode() for name, value in fields if name == b"content-encoding"), None)
    if coding is not None and body:
        body = decoded(coding, body)
    kept = [(name, value) for name, value in fields if name not in OF_THE_CODING]
    return status_line, kept, body, coding


def _chunks(body: bytes) -> Iterator[bytes]:
    while body:
        size, _, body = body.partition(b"\r\n")
        yield body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]


def ask(server: Server, request: bytes, accepts: str) -> bytes:
    head, _, body = request.partition(b"\r\n")
    with server.connect() as wire:
        wire.send(head + f"\r\nAccept-Encoding: {accepts}\r\n".encode() + body)
        return masked(wire.read_to_end())


REQUESTS = [
    pytest.param(case.values[0], id=case.id)
    for case in [*SHARED, *FASTAPI]
    if b"ccept-Encoding" not in case.values[0] and b"/scope/" not in case.values[0]
]


@pytest.mark.parametrize("coding", [*CODINGS, "identity"])
@pytest.mark.parametrize("request_bytes", REQUESTS)
def test_an_answer_is_the_same_once_it_is_decoded(encoding_twins: Twins, request_bytes, coding):
    bare = ask(encoding_twins.bare, request_bytes, coding)
    ours = ask(encoding_twins.installed, request_bytes, coding)
    seen = read(ours)
    assert seen[:3] == read(bare)[:3]
    if coding == "identity":
        assert seen[3] is None


@pytest.mark.parametrize("coding", CODINGS)
def test_some_of_them_were_encoded(encoding_twins: Twins, coding):
    request = http_request("GET", "/static/plain.txt")
    assert read(ask(encoding_twins.installed, request, coding))[3] == coding


def test_a_range_is_served_as_before(encoding_twins: Twins):
    for condition in (LAST_MODIFIED, ETAG):
        request = http_request(
            "GET", "/static/plain.txt", ("Range", "bytes=0-9"), ("If-Range", condition)
        )
        bare = read(ask(encoding_twins.bare, request, "gzip"))
        assert read(ask(encoding_twins.installed, request, "gzip"))[:3] == bare[:3]
