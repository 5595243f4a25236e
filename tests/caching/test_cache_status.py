"""Cache-Status is a valid structured field, whatever it tells (RFC 9211, RFC 9651)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.caching.cache_status import DETAIL_CHARS_MAX, NAME, CacheStatus
from perf_middleware.caching.syntax.structured import Token, parse_dictionary

OURS = CacheStatus("ours")
REASONS = ["bypass", "uri-miss", "vary-miss", "miss", "request", "stale"]


@pytest.mark.parametrize(
    ("told", "value"),
    [
        pytest.param({"ttl_s": 43}, b"ours; hit; ttl=43", id="fresh for a while"),
        pytest.param({"ttl_s": 0}, b"ours; hit; ttl=0", id="fresh no longer"),
        pytest.param({"ttl_s": -5}, b"ours; hit; ttl=-5", id="stale"),
        pytest.param({"ttl_s": 1, "detail": "/a"}, b'ours; hit; ttl=1; detail="/a"', id="a rule"),
        pytest.param({"ttl_s": 1, "detail": ""}, b'ours; hit; ttl=1; detail=""', id="an empty one"),
    ],
)
def test_a_hit_tells_how_long_it_is_fresh(told, value):
    assert OURS.hit(**told) == value


@pytest.mark.parametrize(
    ("told", "value"),
    [
        pytest.param({}, b"ours; fwd=uri-miss", id="a miss"),
        pytest.param({"stored": True}, b"ours; fwd=uri-miss; stored", id="and stored"),
        pytest.param({"collapsed": True}, b"ours; fwd=uri-miss; collapsed", id="another's answer"),
        pytest.param({"status": 304}, b"ours; fwd=uri-miss; fwd-status=304", id="the app's status"),
        pytest.param({"status": 200, "stored": True, "collapsed": True, "detail": "x"},
                     b'ours; fwd=uri-miss; fwd-status=200; stored; collapsed; detail="x"',
                     id="all of it"),
    ],
)  # fmt: skip
def test_a_forward_tells_why_and_what_came_of_it(told, value):
    assert OURS.forward("uri-miss", **told) == value


@pytest.mark.parametrize("reason", REASONS)
def test_the_field_of_a_forward_is_made_once(reason):
    made = OURS.forwarded(reason, stored=False, detail="x")
    assert made == (NAME, OURS.forward(reason, detail="x"))
    assert OURS.forwarded(reason, stored=False, detail="x") is made
    assert OURS.forwarded(reason, stored=True, detail="x") != made


def test_as_many_combinations_are_kept_as_a_busy_app_has_and_no_more():
    status = CacheStatus("ours")
    for number in range(CacheStatus.KEPT_MAX + 50):
        status.forwarded("miss", stored=False, detail=str(number))
    assert status.forward("miss", detail=f"{number}") == b'ours; fwd=miss; detail="%d"' % number
    assert len(status._fields) == len(status._kept) == CacheStatus.KEPT_MAX


@pytest.mark.parametrize(
    ("detail", "written"),
    [
        pytest.param('say "hi"', rb'"say \"hi\""', id="quotes"),
        pytest.param("a\\b", rb'"a\\b"', id="a backslash"),
        pytest.param("a\r\nset-cookie: x", b'"a??set-cookie: x"', id="the end of a line"),
        pytest.param("ü\0\x7f\t", b'"????"', id="what is not printable"),
        pytest.param("a; b, c=d", b'"a; b, c=d"', id="what separates parameters"),
        pytest.param("x" * 999, b'"' + b"x" * DETAIL_CHARS_MAX + b'"', id="too long"),
        pytest.param("\\" * 999, b'"' + b"\\\\" * DETAIL_CHARS_MAX + b'"', id="cut before escaped"),
    ],
)
def test_any_detail_is_a_string(detail, written):
    assert OURS.hit(ttl_s=1, detail=detail).partition(b"detail=")[2] == written


@pytest.mark.parametrize(
    ("cache", "written"),
    [
        pytest.param("perf_middleware", b"perf_middleware", id="a token"),
        pytest.param("h.example:80/x", b'"h.example:80/x"', id="what would be more than a token"),
        pytest.param("my cache", b'"my cache"', id="a space"),
        pytest.param("2nd", b'"2nd"', id="a digit first, as no token begins"),
        pytest.param('a"b', rb'"a\"b"', id="a quote"),
        pytest.param("", b'""', id="nothing"),
    ],
)
def test_the_name_of_a_cache_is_a_token_or_a_string(cache, written):
    assert CacheStatus(cache).hit(ttl_s=1) == written + b"; hit; ttl=1"


@pytest.mark.parametrize("cache", ["ü", "a\r\nb", "\x7f"])
def test_a_name_that_no_field_may_hold_is_refused(cache):
    with pytest.raises(ValueError, match="not printable"):
        CacheStatus(cache)


def parameters(value):
    """The parameters as members of a dictionary, which have the same syntax (RFC 9651 §3.1.2).

    Keys and bare items are alike, and a separator inside a string is none.
    """
    name, _, rest = value.partition(b"; ")
    separated, quoted, escaped = bytearray(), False, False
    for byte in rest:
        separated.append(ord(",") if byte == ord(";") and not quoted else byte)
        quoted ^= byte == ord('"') and not escaped
        escaped = byte == ord("\\") and not escaped
    return name, parse_dictionary([bytes(separated)])


details = st.one_of(st.none(), st.text(max_size=20), st.text('"\\;, a', max_size=300))


@given(st.integers(-(2**40), 2**40), details)
def test_what_a_hit_tells_can_be_read_again(ttl_s, detail):
    name, told = parameters(OURS.hit(ttl_s=ttl_s, detail=detail))
    assert name == b"ours"
    assert (told[b"hit"], told[b"ttl"]) == (True, ttl_s)
    assert set(told) == {b"hit", b"ttl"} | ({b"detail"} if detail is not None else set())


@given(st.sampled_from(REASONS), st.one_of(st.none(), st.integers(100, 599)), st.booleans(),
       st.booleans(), details)  # fmt: skip
def test_what_a_forward_tells_can_be_read_again(reason, status, stored, collapsed, detail):
    value = OURS.forward(reason, status=status, stored=stored, collapsed=collapsed, detail=detail)
    _, told = parameters(value)
    assert told[b"fwd"] == Token(reason)
    assert told.get(b"fwd-status") == status
    assert (b"stored" in told, b"collapsed" in told) == (stored, collapsed)
    if detail is not None:
        readable = "".join(char if " " <= char <= "~" else "?" for char in detail)
        assert told[b"detail"] == readable[:DETAIL_CHARS_MAX]


def test_hits_that_are_as_old_are_told_by_one_object_and_few_are_kept():
    status = CacheStatus("ours")
    tail = status.hit_tail(3, 57, None)
    assert tail == ((b"age", b"3"), (b"cache-status", b"ours; hit; ttl=57"))
    assert status.hit_tail(3, 57, None) is tail
    assert status.hit_tail(3, 57, "/a")[1] == (b"cache-status", b'ours; hit; ttl=57; detail="/a"')
    for age_s in range(CacheStatus.TAILS_MAX + 50):
        assert status.hit_tail(age_s, 0, None)[0] == (b"age", b"%d" % age_s)
    assert len(status._tails) <= CacheStatus.TAILS_MAX
