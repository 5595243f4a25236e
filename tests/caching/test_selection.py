"""Which stored response fits a request: Vary and the secondary key (RFC 9111 §4.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.caching.selection import (
    VARY_FIELDS_MAX,
    VARY_VALUE_BYTES_MAX,
    normalised,
    secondary_key,
    vary_names,
)


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        pytest.param([], (), id="no Vary"),
        pytest.param([b""], (), id="an empty Vary"),
        pytest.param([b" ,, "], (), id="a list of nothing"),
        pytest.param([b"Accept"], (b"accept",), id="one name, in lower case"),
        pytest.param([b"b, A"], (b"a", b"b"), id="sorted"),
        pytest.param([b"accept", b"Cookie"], (b"accept", b"cookie"), id="several lines"),
        pytest.param([b"a, A,a", b"a"], (b"a",), id="each once"),
        pytest.param([b"a,\t,b ,"], (b"a", b"b"), id="empty elements and white space"),
        pytest.param([b"*"], None, id="a star"),
        pytest.param([b"accept, *"], None, id="a star among names"),
        pytest.param([b"accept", b"*"], None, id="a star on another line"),
        pytest.param([b"accept encoding"], None, id="a space in a name"),
        pytest.param([b'"accept"'], None, id="a quoted name"),
        pytest.param([b"accept; q=1"], None, id="a parameter"),
        pytest.param([b"accept:"], None, id="a colon"),
        pytest.param([b"a, \xff"], None, id="a byte that no name has"),
        pytest.param([b"a, \x00"], None, id="a control character"),
        pytest.param([b'a, "b, c'], None, id="a string left open"),
        pytest.param([b"**"], (b"**",), id="two stars are a name, if an odd one"),
    ],
)
def test_vary_names_fields_or_matches_nothing(lines, names):
    assert vary_names(lines) == names


def test_more_fields_than_anyone_varies_by_match_nothing():
    most = [b"f%02d" % number for number in range(VARY_FIELDS_MAX)]
    assert vary_names([b",".join(most)]) == tuple(most)
    assert vary_names([*most, b"one-more"]) is None
    assert vary_names([b",".join(most * 9)]) == tuple(most)


def same(name, one, other):
    def key(lines):
        return secondary_key((name,), {} if lines is None else {name: lines})

    return key(one) == key(other)


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        pytest.param(b"x", [b"a"], [b" a\t"], id="white space around a value"),
        pytest.param(b"x", [b"a", b"b"], [b"a ", b"\tb"], id="white space around each line"),
        pytest.param(b"accept-encoding", [b"gzip, br"], [b"gzip,br"], id="white space in a list"),
        pytest.param(b"accept-encoding", [b"gzip, br"], [b"br", b"gzip"],
                     id="codings have no order, and may be on lines of their own"),
        pytest.param(b"accept-encoding", [b"GZIP"], [b"gzip"], id="codings have no case"),
        pytest.param(b"accept-encoding", [b"gzip;q=0.5"], [b"gzip ; Q=0.5"],
                     id="white space around a weight's semicolon"),
        pytest.param(b"accept-encoding", [b"gzip,,"], [b"gzip"], id="empty elements"),
        pytest.param(b"accept-charset", [b"UTF-8, latin1"], [b"latin1,utf-8"],
                     id="charsets have neither case nor order"),
        pytest.param(b"accept", [b"text/html,  */*"], [b"text/html", b"*/*"],
                     id="media types on lines of their own"),
        pytest.param(b"x", None, None, id="both missing"),
    ],
)  # fmt: skip
def test_requests_that_mean_the_same_share_a_key(name, one, other):
    assert same(name, one, other)


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        pytest.param(b"x", None, [b""], id="missing and empty"),
        pytest.param(b"accept-encoding", None, [b""], id="missing: any coding, empty: none"),
        pytest.param(b"x", [b"a"], [b"A"], id="case, where nothing is known of it"),
        pytest.param(b"x", [b"a,b"], [b"b,a"], id="order, where nothing is known of it"),
        pytest.param(b"x", [b"a b"], [b"ab"], id="white space inside"),
        pytest.param(b"x", [b"a", b"b"], [b"ab"], id="two lines and one run together"),
        pytest.param(b"x", [b"a", b"b"], [b"b", b"a"], id="the order of lines"),
        pytest.param(b"accept", [b'text/html;p="A"'], [b'text/html;p="a"'],
                     id="a parameter of a media type may have case"),
        pytest.param(b"accept", [b"text/html;p=A"], [b"text/html;p=a"],
                     id="quoted or not"),
        pytest.param(b"accept", [b'text/html;p="a,b"'], [b'text/html;p="a", b'],
                     id="a comma in a string"),
        pytest.param(b"accept", [b"text/html;q=0.5"], [b"text/html"], id="another weight"),
        pytest.param(b"accept-language", [b"de, en"], [b"en, de"],
                     id="languages in the client's order"),
        pytest.param(b"accept-language", [b"de"], [b"de-AT"], id="a language of a region"),
        pytest.param(b"accept-language", [b"de"], [b"DE"], id="a case that an app may not know"),
        pytest.param(b"accept-language", [b"de"], [b",de"], id="an element that is empty"),
        pytest.param(b"accept-encoding", [b"gzip"], [b"gzip;q=0"], id="refused by its weight"),
        pytest.param(b"accept-encoding", [b"gzip"], [b"gz ip"], id="junk and a coding"),
        pytest.param(b"accept-encoding", [b"gzip;q=0.5"], [b"gzip;q=0 .5"],
                     id="junk in a weight"),
        pytest.param(b"accept-language", [b"de"], [b"d e"], id="junk and a language"),
        pytest.param(b"cookie", [b"a=1; b=2"], [b"b=2; a=1"], id="cookies are not looked into"),
        pytest.param(b"authorization", [b"Bearer a"], [b"bearer a"], id="nor is Authorization"),
    ],
)  # fmt: skip
def test_requests_that_may_mean_different_things_have_different_keys(name, one, other):
    assert not same(name, one, other)


def test_a_value_too_long_to_be_a_key_has_none():
    fields = {b"x": [b"a" * VARY_VALUE_BYTES_MAX], b"y": [b"a" * (VARY_VALUE_BYTES_MAX + 1)]}
    assert secondary_key((b"x",), fields) is not None
    assert secondary_key((b"y",), fields) is None
    assert secondary_key((b"x", b"y"), fields) is None
    assert secondary_key((), fields) == b""


def test_spaces_without_end_are_normalised_in_linear_time():
    noise = (b" ;" * 40_000 + b" " * 40_000 + b"x") * 2
    assert normalised(b"accept-encoding", [noise]).count(b";") == 80_000


NAMES = (b"a", b"accept", b"accept-encoding", b"accept-language", b"cookie")
texts = st.one_of(st.text('gz ,;="-+0\t1', max_size=8).map(str.encode), st.binary(max_size=6))
requests = st.dictionaries(st.sampled_from(NAMES), st.lists(texts, min_size=1, max_size=3))


@given(requests, requests, st.lists(st.sampled_from(NAMES), unique=True))
def test_keys_are_equal_exactly_where_every_normalised_value_is(one, other, names):
    def values(fields):
        return [normalised(name, fields[name]) if name in fields else None for name in names]

    keys = secondary_key(names, one), secondary_key(names, other)
    assert (keys[0] == keys[1]) == (values(one) == values(other))


@given(st.lists(st.lists(st.one_of(st.none(), texts), min_size=2, max_size=2), max_size=3))
def test_no_value_can_pretend_to_be_the_next_one(rows):
    """Values that contain what separates values do not run into each other."""
    keys = {}
    for row in rows:
        fields = {name: [value] for name, value in zip((b"x", b"y"), row, strict=True)
                  if value is not None}  # fmt: skip
        told = tuple(None if value is None else value.strip(b" \t") for value in row)
        key = secondary_key((b"x", b"y"), fields)
        assert keys.setdefault(key, told) == told
