"""Which header fields a cache looks at, and which it may store."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.caching.fields import (
    CREDENTIALS,
    HOP_BY_HOP,
    RESPONSE_FIELDS,
    collect,
    storable_headers,
)

NOTHING = frozenset()


@pytest.mark.parametrize(
    ("headers", "lines"),
    [
        pytest.param([], {}, id="no field at all"),
        pytest.param([(b"x-other", b"1")], {}, id="no field that was asked for"),
        pytest.param([(b"vary", b"")], {b"vary": [b""]}, id="an empty field is there"),
        pytest.param([(b"Vary", b"A"), (b"VARY", b"B")], {b"vary": [b"A", b"B"]},
                     id="names in any case are one field, its lines in order"),
        pytest.param([(b"vary", b"b"), (b"date", b"d"), (b"vary", b"a")],
                     {b"vary": [b"b", b"a"], b"date": [b"d"]}, id="lines with others between them"),
        pytest.param([(b"vary", b"a"), (b"vary", b"a")], {b"vary": [b"a", b"a"]},
                     id="a line that is repeated is not lost"),
    ],
)  # fmt: skip
def test_the_lines_of_a_field_are_kept_apart_and_in_order(headers, lines):
    assert collect(headers, frozenset({b"vary", b"date"})) == lines


def test_an_iterator_of_headers_is_read_once():
    assert collect(iter([(b"Vary", b"a")]), RESPONSE_FIELDS) == {b"vary": [b"a"]}


@pytest.mark.parametrize(
    "name",
    [
        b"Connection", b"Keep-Alive", b"Proxy-Connection", b"TE", b"Trailer", b"Transfer-Encoding",
        b"Upgrade", b"Proxy-Authenticate", b"Proxy-Authentication-Info", b"Proxy-Authorization",
    ],
    ids=bytes.decode,
)  # fmt: skip
def test_what_belongs_to_a_connection_is_never_stored(name):
    sent = [(name, b"x"), (b"etag", b'"1"'), (name.lower(), b"y")]
    assert storable_headers(sent, connection=[], without=NOTHING) == [(b"etag", b'"1"')]


@pytest.mark.parametrize(
    ("connection", "kept"),
    [
        pytest.param([], [b"x-a", b"x-b", b"x-a"], id="none named"),
        pytest.param([b"close"], [b"x-a", b"x-b", b"x-a"], id="an option that is no field"),
        pytest.param([b"X-A"], [b"x-b"], id="one named in another case: all of its lines"),
        pytest.param([b"close, x-b", b"x-a"], [], id="several lines of Connection"),
        pytest.param([b" ,, x-b\t,"], [b"x-a", b"x-a"], id="empty elements"),
        pytest.param([b"x-a x-b"], [b"x-a", b"x-b", b"x-a"], id="junk names nothing"),
        pytest.param([b'"x-a, x-b'], [b"x-a", b"x-b", b"x-a"], id="a string left open"),
    ],
)
def test_fields_that_connection_names_are_not_stored(connection, kept):
    sent = [(b"X-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3")]
    stored = storable_headers(sent, connection=connection, without=NOTHING)
    assert [name for name, _ in stored] == kept


def test_what_is_to_be_left_out_is_left_out_in_any_case_of_its_name():
    sent = [(b"Set-Cookie", b"a=1"), (b"ETag", b'"1"'), (b"set-cookie", b"b=1")]
    kept = storable_headers(sent, connection=[], without=frozenset({b"set-cookie"}))
    assert kept == [(b"etag", b'"1"')]


def test_headers_may_be_any_pairs_of_bytes():
    sent = ([bytearray(b"ETag"), memoryview(b'"1"')],)
    kept = storable_headers([(name, value) for name, value in sent], connection=[], without=NOTHING)
    assert kept == [(b"etag", b'"1"')]
    assert {type(part) for pair in kept for part in pair} == {bytes}


def test_the_fields_that_say_who_asks_are_known():
    assert {b"authorization", b"cookie", b"x-api-key", b"x-forwarded-user"} <= CREDENTIALS
    assert all(name == name.lower() for name in CREDENTIALS | HOP_BY_HOP | RESPONSE_FIELDS)


names = st.sampled_from([b"Connection", b"TE", b"x-a", b"X-B", b"etag", b"Set-Cookie"])
pairs = st.lists(st.tuples(names, st.binary(max_size=12)), max_size=8)


@given(pairs, st.lists(st.binary(max_size=12), max_size=3), st.frozensets(st.just(b"x-a")))
def test_what_is_stored_is_a_part_of_what_was_sent_in_its_order(sent, connection, without):
    kept = storable_headers(sent, connection=connection, without=without)
    rest = iter((name.lower(), value) for name, value in sent)
    assert all(pair in rest for pair in kept)
    assert not {name for name, _ in kept} & (HOP_BY_HOP | without)
