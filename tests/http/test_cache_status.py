"""The one field that default settings add to an answer: Cache-Status (RFC 9211), nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from perf_middleware import Settings
from tests.http.apps import starlette_app
from tests.http.servers import Journal, Server, Twins, serving, with_bundle
from tests.http.wire import http_request

ADDED = b"cache-status: perf_middleware; fwd="


@pytest.fixture(scope="module")
def twins(files: Path) -> Iterator[Twins]:
    bare, installed = Journal(), Journal()
    settings = Settings(cache={"status_header": True})
    twins = Twins(
        Server(starlette_app(bare, files), journal=bare),
        Server(with_bundle(starlette_app(installed, files), settings), journal=installed),
    )
    with serving(twins.bare, twins.installed):
        yield twins


@pytest.mark.parametrize("target", ["/text", "/json", "/none", "/cookies", "/static/plain.txt"])
@pytest.mark.parametrize("fields", [(), (("Cookie", "a=b"),)], ids=["plain", "with a cookie"])
def test_nothing_but_cache_status_is_added(twins: Twins, target, fields):
    request = http_request("GET", target, *fields)
    bare, installed = (server.exchange(request) for server in (twins.bare, twins.installed))
    lines = installed.split(b"\r\n")
    added = [line for line in lines if line.startswith(ADDED)]
    assert len(added) == 1
    assert [line for line in lines if line not in added] == bare.split(b"\r\n")


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "DELETE"])
def test_what_is_not_looked_up_has_no_field_added(twins: Twins, method):
    request = http_request(method, "/text")
    bare, installed = (server.exchange(request) for server in (twins.bare, twins.installed))
    assert installed == bare
