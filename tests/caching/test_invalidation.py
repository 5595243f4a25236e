"""What a write makes invalid (RFC 9111 §4.4), and how targets are compared (RFC 9110 §4.2.3)."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perf_middleware.caching.invalidation import (
    POINTERS_MAX,
    TEXT,
    URL_BYTES_MAX,
    decoded_query,
    invalidates,
    path_of,
    pointed_targets,
    target_of,
    target_of_url,
)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        pytest.param("GET", False, id="GET"),
        pytest.param("HEAD", False, id="HEAD"),
        pytest.param("OPTIONS", False, id="OPTIONS"),
        pytest.param("TRACE", False, id="TRACE"),
        pytest.param("QUERY", True, id="QUERY: what it does is not known here"),
        pytest.param("PROPFIND", True, id="PROPFIND of WebDAV neither"),
        pytest.param("POST", True, id="POST"),
        pytest.param("PUT", True, id="PUT"),
        pytest.param("PATCH", True, id="PATCH"),
        pytest.param("DELETE", True, id="DELETE"),
        pytest.param("MKCOL", True, id="MKCOL of WebDAV"),
        pytest.param("FROBNICATE", True, id="unknown: its safety is not known"),
        pytest.param("get", True, id="methods have case: this one is unknown"),
        pytest.param("", True, id="no method"),
    ],
)
def test_a_method_that_is_not_known_to_be_safe_invalidates(method, expected):
    assert invalidates(method, 200) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [(100, False), (199, False), (200, True), (201, True), (204, True), (299, True), (301, True),
     (303, True), (304, True), (399, True), (400, False), (404, False), (412, False), (499, False),
     (500, False), (599, False)],
)  # fmt: skip
def test_only_an_answer_that_is_no_error_invalidates(status, expected):
    assert invalidates("POST", status) is expected


def target(path=b"/a", query=b"", scheme="http", host=b"h"):
    return target_of(scheme, host, path, query)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({}, {"host": b"H"}, id="hosts have no case"),
        pytest.param({}, {"host": b"h:80"}, id="the port of http"),
        pytest.param({}, {"host": b"h:"}, id="a port that is empty"),
        pytest.param({"scheme": "https"}, {"scheme": "https", "host": b"h:443"},
                     id="the port of https"),
        pytest.param({"path": b"/a"}, {"path": b"/%61"}, id="an escape that was not needed"),
        pytest.param({"path": b"/%c3%bc"}, {"path": b"/%C3%BC"}, id="escapes have no case"),
        pytest.param({"path": b"/\xc3\xbc"}, {"path": b"/%C3%BC"}, id="bytes that need an escape"),
        pytest.param({"path": b"/a%"}, {"path": b"/a%"}, id="a percent sign of no escape"),
        pytest.param({"host": b"[::1]:80"}, {"host": b"[::1]"}, id="an address of IPv6"),
        pytest.param({"query": b"a=%61%2c"}, {"query": b"a=a,"}, id="escapes in a query"),
        pytest.param({"query": b"a=%c3%bc"}, {"query": b"a=%C3%BC"}, id="they have no case"),
        pytest.param({"query": b"a=%2b%26"}, {"query": b"a=%2B%26"}, id="nor have those that stay"),
        pytest.param({"query": b"a=b+c"}, {"query": b"a=b%20c"}, id="a space as forms send it"),
        pytest.param({"query": b"a=5%"}, {"query": b"a=5%25"}, id="a percent sign in a query"),
    ],
)  # fmt: skip
def test_spellings_of_one_url_are_one_target(one, other):
    assert target(**one) == target(**other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({}, {"scheme": "https"}, id="schemes"),
        pytest.param({}, {"host": b"h2"}, id="hosts"),
        pytest.param({}, {"host": b"h:8080"}, id="ports"),
        pytest.param({}, {"host": b"h:443"}, id="the port of the other scheme"),
        pytest.param({"path": b"/a"}, {"path": b"/A"}, id="paths have case"),
        pytest.param({"path": b"/a"}, {"path": b"/a/"}, id="a slash more"),
        pytest.param({}, {"query": b"a=1"}, id="a query"),
        pytest.param({"query": b"a=1&b=2"}, {"query": b"b=2&a=1"}, id="the order in a query"),
        pytest.param({"query": b"a=1%262"}, {"query": b"a=1&2"}, id="an escaped ampersand"),
        pytest.param({"query": b"a%3D1"}, {"query": b"a=1"}, id="an escaped equals sign"),
        pytest.param({"query": b"a%2B1"}, {"query": b"a+1"}, id="an escaped plus"),
        pytest.param({"query": b"a%2561"}, {"query": b"a%61"}, id="an escaped percent sign"),
        pytest.param({"path": b"/a+b"}, {"path": b"/a%20b"}, id="a plus in a path is no space"),
    ],
)
def test_different_urls_are_different_targets(one, other):
    assert target(**one) != target(**other)


@pytest.mark.parametrize(
    ("parts", "path"),
    [
        pytest.param({"path": b"/a/b", "query": b"c=/d"}, b"/a/b?c=/d", id="with its query"),
        pytest.param({"path": b"/"}, b"/", id="the root"),
        pytest.param({"path": b"//a"}, b"//a", id="two slashes"),
        pytest.param({"path": b"/a", "host": b""}, b"/a", id="no host"),
        pytest.param({"path": b"*"}, b"", id="the server itself has no path"),
        pytest.param({"path": b""}, b"", id="no path at all"),
    ],
)
def test_the_path_of_a_target(parts, path):
    assert path_of(target(**parts)) == path


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("/a", (b"/a", True), id="a path is of any host"),
        pytest.param("/a?b=c", (b"/a?b=c", True), id="with its query"),
        pytest.param("/", (b"/", True), id="the root"),
        pytest.param("//a/b", (b"//a/b", True), id="two slashes are a path here"),
        pytest.param("/a?next=http://x/", (b"/a?next=http://x/", True),
                     id="a URL inside the query is no host"),
        pytest.param("/%61/ü", (b"/a/\xc3\xbc", True), id="in one spelling"),
        pytest.param("/a?q=%61 ü", (b"/a?q=a \xc3\xbc", True), id="its query too"),
        pytest.param("/a#part", (b"/a", True), id="without a fragment"),
        pytest.param("http://H:80/a", (b"http://h/a", False), id="a URL is of its host"),
        pytest.param("HTTPS://h", (b"https://h/", False), id="without a path it is the root"),
        pytest.param("http://user:pw@h/a", (b"http://h/a", False), id="whoever asks"),
        pytest.param("http://h?q", (b"http://h/?q", False), id="a query right after the host"),
    ],
)  # fmt: skip
def test_the_target_of_a_url_that_the_owner_gives(url, expected):
    assert target_of_url(url) == expected


@pytest.mark.parametrize(
    "url",
    ["", "a", "a/b", "?a", "#a", "ftp://h/a", "http://", "http:///a", "http://[", "mailto:a@b",
     "h/a?next=http://x/", "*"],
)  # fmt: skip
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ValueError, match="neither a path"):
        target_of_url(url)


def pointed(location, base="http://h/a/b?q", field=b"location"):
    return pointed_targets(base, {field: [location]})


@pytest.mark.parametrize("field", [b"location", b"content-location"])
@pytest.mark.parametrize(
    ("location", "expected"),
    [
        pytest.param(b"http://h/x", b"http://h/x", id="the same origin"),
        pytest.param(b"/x", b"http://h/x", id="a path"),
        pytest.param(b"x", b"http://h/a/x", id="relative"),
        pytest.param(b"../x", b"http://h/x", id="relative to what is above"),
        pytest.param(b"?p=1", b"http://h/a/b?p=1", id="a query"),
        pytest.param(b"", b"http://h/a/b?q", id="nothing is the target itself"),
        pytest.param(b"//h/x", b"http://h/x", id="without a scheme"),
        pytest.param(b"HTTP://H:80/x", b"http://h/x", id="spelled otherwise"),
        pytest.param(b"http://h:/x", b"http://h/x", id="an empty port"),
        pytest.param(b"http://user:pw@h/x", b"http://h/x", id="with a user"),
        pytest.param(b"http://h", b"http://h/", id="without a path"),
        pytest.param(b"/%61?%61", b"http://h/a?a", id="a path and a query, decoded"),
        pytest.param(b"/\xc3\xbc", b"http://h/\xc3\xbc", id="bytes of UTF-8"),
        pytest.param(b"/%C3%BC", b"http://h/\xc3\xbc", id="the same escaped"),
        pytest.param(b"/\xff", b"http://h/\xff", id="bytes of no text"),
        pytest.param(b"/x#part", b"http://h/x", id="without its fragment"),
        pytest.param(b" /x\t", b"http://h/x", id="white space around it"),
    ],
)  # fmt: skip
def test_what_the_answer_points_to_is_invalid_too(location, expected, field):
    assert pointed(location, field=field) == [expected]


@pytest.mark.parametrize(
    "location",
    [
        pytest.param(b"http://other/x", id="another host"),
        pytest.param(b"//other/x", id="another host without a scheme"),
        pytest.param(b"https://h/x", id="another scheme"),
        pytest.param(b"http://h:8080/x", id="another port"),
        pytest.param(b"http://h.evil/x", id="a host that begins so"),
        pytest.param(b"http://h@evil/x", id="our host as the user"),
        pytest.param(b"http://evil#@h/x", id="our host in the fragment"),
        pytest.param(b"mailto:a@h", id="no URL of a host"),
        pytest.param(b"javascript:alert(1)", id="no URL of a host either"),
        pytest.param(b"http://[", id="a host left open"),
        pytest.param(b"http://[::1/x", id="an address left open"),
        pytest.param(b"http://h\xe2\x84\x80/x", id="a host that hides a slash"),
        pytest.param(b"/" + b"a" * URL_BYTES_MAX, id="absurdly long"),
    ],
)
def test_what_is_of_another_origin_is_left_alone(location):
    assert pointed(location) == []


def test_both_fields_count_with_some_lines_of_each():
    lines = {b"location": [b"/1", b"/2"], b"content-location": [b"/3"], b"other": [b"/4"]}
    assert pointed_targets("http://h/", lines) == [b"http://h/1", b"http://h/2", b"http://h/3"]
    assert len(pointed_targets("http://h/", {b"location": [b"/"] * 99})) == POINTERS_MAX
    assert pointed_targets("http://h/", {}) == []


@pytest.mark.parametrize("base", ["", "*", "http://", "http://[/", "h/a"])
def test_a_target_that_is_no_url_points_nowhere(base):
    assert pointed(b"/x", base=base) == []


hosts = st.one_of(st.sampled_from([b"h", b"H:80", b"[", b"", b"a@b"]), st.binary(max_size=8))
parts = st.one_of(st.sampled_from([b"/%2F", b"*", b"//", b"/?#"]), st.binary(max_size=12))


@given(st.sampled_from(["http", "https"]), hosts, parts, parts, parts)
@example("http", b"h", b"*", b"", b"/x")
def test_any_bytes_have_a_target_and_point_somewhere_or_nowhere(scheme, host, path, query, to):
    own = target_of(scheme, host, path, query)
    assert own.endswith(path_of(own))
    assert target_of(scheme, host, path, decoded_query(query)) == own
    for found in pointed_targets(own.decode(*TEXT), {b"location": [to], b"content-location": [to]}):
        assert found.startswith(b"%b://" % scheme.encode())
        assert path_of(found)
