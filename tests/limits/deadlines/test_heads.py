"""What the head of a request says."""

import pytest

from perf_middleware.limits.deadlines.heads import UNTOLD, body_bytes_of, header_bytes, url_bytes
from tests.driving import http_scope


@pytest.mark.parametrize(
    ("headers", "version", "body_bytes"),
    [
        pytest.param([], "1.1", 0, id="on HTTP/1 neither field is no body"),
        pytest.param([], "2", UNTOLD, id="later versions need neither"),
        pytest.param([("Content-Length", "12")], "1.1", 12, id="its length"),
        pytest.param([("Content-Length", "0")], "2", 0, id="none"),
        pytest.param([("Transfer-Encoding", "chunked")], "1.1", UNTOLD, id="chunks"),
        pytest.param(
            [("Content-Length", "1"), ("Transfer-Encoding", "chunked")], "1.1", UNTOLD,
            id="beside chunks a length says nothing",
        ),
        pytest.param([("Content-Length", "-1")], "1.1", UNTOLD, id="no number"),
        pytest.param([("Content-Length", "1" * 19)], "1.1", UNTOLD, id="too long a number"),
        pytest.param(
            [("Content-Length", "9"), ("Content-Length", "1")], "1.1", 9, id="two: the longer"
        ),
    ],
)  # fmt: skip
def test_the_length_of_a_body(headers, version, body_bytes):
    assert body_bytes_of(http_scope(headers=headers, http_version=version)) == body_bytes


def test_the_bytes_of_headers_are_those_of_names_and_values():
    assert header_bytes([(b"a", b"bc"), (b"def", b"")]) == 6


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (http_scope("/abc"), 4),
        (http_scope("/abc", query_string=b"x=1"), 8),
        (http_scope("/ä", raw_path=b"/%C3%A4"), 7),
        (http_scope("/ä", raw_path=None), 3),
    ],
)
def test_the_bytes_of_a_url(scope, expected):
    assert url_bytes(scope) == expected
