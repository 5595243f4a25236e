"""No two URLs share a stored response, whatever a client writes into its Host or its path."""

import asyncio

import pytest

from perf_middleware import ResponseCacheMiddleware


async def says_what_it_saw(scope, receive, send):
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    body = repr((scope["scheme"], hosts, scope["path"], scope["query_string"])).encode()
    headers = [(b"cache-control", b"max-age=60")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def scope_of(path, *hosts, raw=True, query=b"", scheme="http"):
    scope = {
        "type": "http", "method": "GET", "scheme": scheme, "path": path, "query_string": query,
        "headers": [(b"host", host) for host in hosts],
    }  # fmt: skip
    return scope | ({"raw_path": path.encode()} if raw else {})


def answers(*scopes):
    """The body and Cache-Status that one cache gives each of these requests in turn."""
    cache = ResponseCacheMiddleware(says_what_it_saw)
    told = []

    async def main():
        for scope in scopes:
            sent = []

            async def send(message, sent=sent):
                sent.append(message)

            await cache(scope, None, send)
            status = dict(sent[0]["headers"])[b"cache-status"]
            told.append((b"".join(m.get("body", b"") for m in sent[1:]), status))

    asyncio.run(main())
    return told


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(
            scope_of("/b", b"h/a"), scope_of("/a/b", b"h"), id="a piece of the path in the Host"
        ),
        pytest.param(
            scope_of("/b", b"h?x="), scope_of("/", b"h", query=b"x=/b"), id="a query in the Host"
        ),
        pytest.param(scope_of("/a", b"h"), scope_of("/a", b"other"), id="two hosts"),
        pytest.param(scope_of("/a", b"h"), scope_of("/a"), id="no host"),
        pytest.param(
            scope_of("/a", b"h"), scope_of("/a", b"h", scheme="https"), id="two schemes"
        ),
        pytest.param(scope_of("http://h/a", b"h"), scope_of("/a", b"h"), id="an absolute form"),
        pytest.param(
            scope_of("/a\n/b", b"h", raw=False), scope_of("/b", b"h\n/a", raw=False),
            id="a line feed, from a server that tells no raw path",
        ),
        pytest.param(scope_of("/a", b"h"), scope_of("/a", b"h", query=b"x"), id="a query"),
    ],
)  # fmt: skip
def test_requests_that_differ_share_nothing(one, other):
    first, second = answers(one, other)
    assert first[0] != second[0]
    assert b"hit" not in second[1]


def test_a_request_with_two_hosts_is_neither_answered_nor_stored():
    two = scope_of("/a", b"good", b"evil")
    told = answers(two, scope_of("/a", b"evil"), scope_of("/a", b"good"), two)
    assert [b"hit" in status for _, status in told] == [False] * 4
    assert told[0][1] == b'perf_middleware; fwd=bypass; detail="host"'


def test_one_url_is_stored_once():
    first, second = answers(scope_of("/a", b"h"), scope_of("/a", b"h"))
    assert first[0] == second[0]
    assert b"hit" in second[1]
