"""Lists over field lines, the names in them, and what tokens and strings stand for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.caching.syntax.lists import is_token, members, unquote


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([], [], id="no line"),
        pytest.param([b""], [], id="an empty line"),
        pytest.param([b" , ,\t,"], [], id="nothing but separators"),
        pytest.param([b"a"], [b"a"], id="one element"),
        pytest.param([b" a ,\tb\t"], [b"a", b"b"], id="white space around elements"),
        pytest.param([b"a b"], [b"a b"], id="white space inside stays"),
        pytest.param([b"a,,b,"], [b"a", b"b"], id="empty elements are dropped"),
        pytest.param([b"a, b", b"c"], [b"a", b"b", b"c"], id="several lines are one list"),
        pytest.param([b'a="x, y", b'], [b'a="x, y"', b"b"], id="a comma in a string"),
        pytest.param([b'"a" , "b,"'], [b'"a"', b'"b,"'], id="strings"),
        pytest.param([b'""', b'a=""'], [b'""', b'a=""'], id="empty strings are elements"),
        pytest.param([rb'a="x\", y", b'], [rb'a="x\", y"', b"b"], id="an escaped quote"),
        pytest.param([rb'a="x\\", b'], [rb'a="x\\"', b"b"], id="an escaped backslash"),
        pytest.param([rb"a=x\, b"], [rb"a=x" + b"\\", b"b"], id="no escape outside a string"),
        pytest.param([b'a="x, b', b"c"], [b'a="x, b', b"c"], id="a string left open ends"),
        pytest.param([b'a="x\\'], [b'a="x\\'], id="a backslash at the end of an open string"),
        pytest.param([b'"x"y"z,"'], [b'"x"y"z,"'], id="strings without anything between"),
        pytest.param([b"a\x0b,b\r"], [b"a\x0b", b"b\r"], id="only space and tab are white space"),
        pytest.param([b"\xff,\x00"], [b"\xff", b"\x00"], id="bytes stay bytes"),
    ],
)  # fmt: skip
def test_a_list_is_split_at_its_commas_only(lines, expected):
    assert members(lines) == expected


TOKENS = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=5).map(str.encode)
STRINGS = st.binary(max_size=8).map(
    lambda raw: b'"' + raw.replace(b"\\", rb"\\").replace(b'"', rb"\"") + b'"'
)
ELEMENTS = st.lists(TOKENS | STRINGS | st.builds(lambda t, s: t + b"=" + s, TOKENS, STRINGS))


@given(ELEMENTS, st.sampled_from([b",", b" , ", b",,", b"\t,"]))
def test_what_was_joined_is_split_again_as_one_line_or_many(elements, separator):
    assert members([separator.join(elements)]) == elements
    assert members(elements) == elements


@pytest.mark.parametrize("byte", range(256))
def test_a_token_has_the_characters_of_the_grammar(byte):
    allowed = b"!#$%&'*+-.^_`|~"
    expected = bytes([byte]).isalnum() or byte in allowed
    assert is_token(bytes([byte])) == expected
    assert not is_token(b"")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(b"abc", b"abc", id="a token"),
        pytest.param(b'"abc"', b"abc", id="a string"),
        pytest.param(b'""', b"", id="an empty string"),
        pytest.param(rb'"a\"b\\c\d"', rb'a"b\cd', id="escapes"),
        pytest.param(b'"\xff\t "', b"\xff\t ", id="what a string may hold"),
        pytest.param(b"", None, id="nothing"),
        pytest.param(b'"', None, id="one quote"),
        pytest.param(b'"abc', None, id="left open"),
        pytest.param(rb'"abc\"', None, id="closed by an escaped quote only"),
        pytest.param(b'"a"b"', None, id="a quote inside"),
        pytest.param(b'"a" ', None, id="something after it"),
        pytest.param(b'"a\x00"', None, id="a control character"),
        pytest.param(b"a b", None, id="two tokens"),
    ],
)
def test_a_token_or_a_string_stands_for_its_text(value, expected):
    assert unquote(value) == expected
