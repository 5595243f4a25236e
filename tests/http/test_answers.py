"""One request, one answer: with the bundle installed every byte is the one that the app sent."""

import json

import pytest

from tests.http.servers import Twins
from tests.http.wire import http_request

ETAG = '"dummy"'
LAST_MODIFIED = "Tue, 14 Nov 2023 22:13:20 GMT"  # of the folder's files
JSON_BODY = json.dumps({"name": "ham", "price": 2.5}).encode()
FORM_BODY = (
    b"--edge\r\nContent-Disposition: form-data; name=title\r\n\r\nA title\r\n"
    b"--edge\r\nContent-Disposition: form-data; name=document; filename=a.bin\r\n"
    b"Content-Type: application/octet-stream\r\n\r\n" + bytes(5_000) + b"\r\n--edge--\r\n"
)
FORM_TYPE = ("Content-Type", "multipart/form-data; boundary=edge")
JSON_TYPE = ("Content-Type", "application/json")


def answer_to(*request: object, status: int, part: bytes = b"", body: bytes | None = None, id: str):
    return pytest.param(http_request(*request, body=body), status, part, id=id)


SHARED = [
    answer_to("GET", "/json", status=200, part='{"text":"größe"'.encode(), id="JSON"),
    answer_to("GET", "/text", status=200, part=b"x-stamped: yes", id="text, a middleware's header"),
    answer_to("GET", "/bytes", status=200, part=bytes(range(256)), id="bytes"),
    answer_to("GET", "/large", status=200, part=b"a line of text\n" * 20_000, id="300 KB"),
    answer_to("GET", "/no-content", status=204, id="204 has no body"),
    answer_to("GET", "/without-type", status=200, part=b"no content type", id="no content type"),
    answer_to("GET", "/headers", status=200, part=b"first", id="duplicate headers in their order"),
    answer_to("GET", "/cookies", status=200, part=b"two=2", id="two Set-Cookie stay two"),
    answer_to("GET", "/redirect", status=303, part=b"location: /json?from", id="redirect"),
    answer_to("GET", "/folder?q=1", status=307, part=b"/folder/?q=1", id="redirect to the slash"),
    answer_to("HEAD", "/text", status=200, part=b"content-length: 7", id="HEAD of a text"),
    answer_to("HEAD", "/static/plain.txt", status=200, part=b"length: 1100", id="HEAD of a file"),
    answer_to("HEAD", "/by-method", status=200, id="HEAD of an endpoint class"),
    answer_to("OPTIONS", "/text", status=405, part=b"allow: ", id="OPTIONS"),
    answer_to("POST", "/text", status=405, part=b"allow: ", id="POST to a GET route"),
    answer_to("DELETE", "/by-method", status=405, part=b"allow: ", id="405 of a class"),
    answer_to("PUT", "/by-method", body=b"put this", status=200, part=b"put this", id="PUT"),
    answer_to("PROPFIND", "/text", status=405, id="a method nobody serves"),
    answer_to("GET", "/nowhere", status=404, part=b"Not Found", id="404"),
    answer_to("GET", "/inner/nowhere", status=404, id="404 in a mounted app"),
    answer_to("GET", "/teapot", status=418, part=b"x-teapot: 1", id="an exception handler"),
    answer_to("GET", "/http-error", status=403, part=b"x-reason: policy", id="HTTPException"),
    answer_to("GET", "/boom", status=500, part=b"\r\n\r\nInternal Server Error", id="500"),
    answer_to("GET", "/late-boom", status=200, part=b"before the f", id="cut off in the middle"),
    answer_to("GET", "/inner/boom", status=418, id="a mounted app's own handler"),
    answer_to("GET", "/inner/teapot", status=418, id="a mounted app's own handler, handled above"),
    answer_to("GET", "/inner/where", status=200, part=b'"root_path":"/inner"', id="mounted app"),
    answer_to("GET", "/urls", status=200, part=b"http://example.test/inner/where", id="url_for"),
    answer_to("GET", "/state", status=200, part=b'"same object":true', id="lifespan state"),
    answer_to("GET", "/thread", status=200, part=b"loop's thread\":false", id="a sync endpoint"),
    answer_to("GET", "/scope/a%2Fb%20c/../d?q=%C3%A4&q=", status=200, part=b"%2Fb", id="raw path"),
    answer_to("GET", "/scope//double//slash", status=200, part=b"//double", id="double slashes"),
    answer_to(
        "POST", "/scope/x", ("X-A", "1"), ("x-a", "2"), ("X-Empty", ""), ("Accept-Encoding", "br"),
        body=b"", status=200, part=b"(b'x-a', b'1'), (b'x-a', b'2')", id="request headers",
    ),
    answer_to("POST", "/upload", body=b"x" * 300_000, status=200, part=b"300000", id="upload"),
    answer_to("POST", "/upload", body=b"", status=200, part=b'"size":0', id="an empty upload"),
    answer_to("POST", "/unread", body=b"x" * 300, status=401, part=b"without", id="unread body"),
    answer_to(
        "POST", "/form", FORM_TYPE, body=FORM_BODY, status=200, part=b'"size":5000', id="a form",
    ),
    answer_to("GET", "/static/plain.txt", status=200, part=b"etag: ", id="a file"),
    answer_to("GET", "/static/empty.txt", status=200, part=b"length: 0", id="an empty file"),
    answer_to("GET", "/static/nothing.txt", status=404, id="a file that is not there"),
    answer_to("GET", "/static/../secret", status=404, id="out of the folder"),
    answer_to(
        "GET", "/download", status=200, part=b"filename*=utf-8''nummern%20", id="an attachment",
    ),
    answer_to(
        "GET", "/static/numbers.bin", ("Range", "bytes=10-19"),
        status=206, part=b"content-range: bytes 10-19/256000", id="a range",
    ),
    answer_to(
        "GET", "/static/numbers.bin", ("Range", "bytes=-5"),
        status=206, part=bytes([251, 252, 253, 254, 255]), id="a range from the end",
    ),
    answer_to(
        "GET", "/static/numbers.bin", ("Range", "bytes=0-1,1000-1001,5000-"),
        status=206, part=b"boundary=(masked)", id="several ranges",
    ),
    answer_to(
        "GET", "/static/numbers.bin", ("Range", "bytes=256000-"),
        status=416, part=b"content-range: bytes */256000", id="a range that is not there",
    ),
    answer_to(
        "GET", "/static/numbers.bin", ("Range", "bytes=9-1"), status=400, id="a malformed range",
    ),
    answer_to(
        "GET", "/static/numbers.bin", ("Range", "bytes=0-9"), ("If-Range", LAST_MODIFIED),
        status=206, part=b"content-length: 10\r", id="If-Range that holds",
    ),
    answer_to(
        "GET", "/static/numbers.bin", ("Range", "bytes=0-9"), ("If-Range", ETAG),
        status=200, part=b"content-length: 256000\r", id="If-Range that does not",
    ),
    answer_to(
        "HEAD", "/static/numbers.bin", ("Range", "bytes=0-9"),
        status=206, part=b"content-length: 10\r", id="HEAD of a range",
    ),
    answer_to(
        "GET", "/static/plain.txt", ("If-Modified-Since", LAST_MODIFIED),
        status=304, id="not modified since",
    ),
    answer_to("GET", "/static/plain.txt", ("If-None-Match", ETAG), status=200, id="another ETag"),
    answer_to(
        "GET", "/text", ("Accept-Encoding", "gzip, br, zstd"),
        status=200, part="größe".encode(), id="an encoding that the app does not offer",
    ),
    answer_to(
        "GET", "/text", ("traceparent", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"),
        status=200, id="a trace context",
    ),
    answer_to("GET", "/text", ("traceparent", "not one"), status=200, id="a broken trace context"),
]  # fmt: skip

FASTAPI = [
    answer_to("GET", "/openapi.json", status=200, part=b'"/v1/items/{item_id}"', id="the schema"),
    answer_to("GET", "/docs", status=200, part=b"swagger", id="the documentation"),
    answer_to("GET", "/v1/items/7?q=a", ("X-Token", "t"), status=200, part=b'"q":"a"', id="typed"),
    answer_to("GET", "/v1/items/seven", status=422, part=b"int_parsing", id="invalid path"),
    answer_to("GET", "/v1/thread", status=200, part=b'"dependency":"set', id="a sync endpoint"),
    answer_to(
        "POST", "/v1/items", JSON_TYPE, body=JSON_BODY,
        status=201, part=b'\r\n\r\n{"name":"ham","price":2.5}', id="a response model",
    ),
    answer_to("POST", "/v1/items", JSON_TYPE, body=b"{", status=422, id="invalid JSON"),
    answer_to(
        "POST", "/v1/items", JSON_TYPE, body=b'{"name":"x","price":0}',
        status=422, part=b"greater_than", id="an invalid field",
    ),
    answer_to(
        "POST", "/v1/files", FORM_TYPE, body=FORM_BODY, status=200, part=b"5000", id="a file",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("request_bytes", "status", "part"), SHARED)
def test_the_answer_is_the_same_byte_for_byte(twins: Twins, request_bytes, status, part):
    answer = twins.both(lambda server: server.exchange(request_bytes))
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:500]
    assert part.lower() in answer.lower()


@pytest.mark.parametrize(("request_bytes", "status", "part"), FASTAPI)
def test_an_answer_of_fastapi_is_the_same(fastapi_twins: Twins, request_bytes, status, part):
    answer = fastapi_twins.both(lambda server: server.exchange(request_bytes))
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:500]
    assert part in answer


def test_the_body_of_a_known_etag_is_not_sent_again(twins: Twins):
    def revalidate(server):
        first = server.exchange(http_request("GET", "/static/plain.txt"))
        etag = first.partition(b"etag: ")[2].partition(b"\r\n")[0].decode()
        return server.exchange(http_request("GET", "/static/plain.txt", ("If-None-Match", etag)))

    answer = twins.both(revalidate)
    assert answer.startswith(b"HTTP/1.1 304 ")
    assert answer.endswith(b"\r\n\r\n")


def test_an_answer_that_says_nothing_of_caches_is_produced_anew(twins: Twins, key):
    request = http_request("GET", f"/untold/{key}")
    first, second = twins.both(lambda server: [server.exchange(request) for _ in range(2)])
    assert first.endswith(b"call 1")
    assert second.endswith(b"call 2")
    assert b"\r\nage:" not in second


def test_an_answer_that_the_app_gives_to_shared_caches_is_kept_by_ours(twins: Twins, key):
    """`Cache-Control: public, max-age=60` is the app's own word (RFC 9111 §3)."""
    request = http_request("GET", f"/counted/{key}")
    first, second = [twins.installed.exchange(request) for _ in range(2)]
    assert first.endswith(b"call 1")
    assert second.endswith(b"call 1")
    assert b"\r\nage: 0\r\n" in second


def test_a_client_that_wants_only_what_is_stored_is_told_that_nothing_is(twins: Twins):
    request = http_request("GET", "/text", ("Cache-Control", "only-if-cached"))
    assert twins.installed.exchange(request).startswith(b"HTTP/1.1 504 ")
