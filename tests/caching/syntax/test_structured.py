"""Structured fields: dictionaries, lists of strings, strings written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.caching.syntax.structured import (
    INNER_MEMBERS_MAX,
    MEMBERS_MAX,
    STRING_CHARACTERS_MAX,
    STRINGS_MAX,
    Token,
    Unread,
    parse_dictionary,
    parse_string_list,
    quoted,
)


def test_an_inner_list_of_too_many_members_makes_the_field_invalid():
    longest = b"a=(" + b" ".join([b"1"] * INNER_MEMBERS_MAX) + b")"
    assert parse_dictionary([longest, b"b"]) == {b"a": Unread.INNER_LIST, b"b": True}
    assert parse_dictionary([longest.replace(b")", b" 1)"), b"b"]) is None


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([], {}, id="no line"),
        pytest.param([b""], {}, id="empty"),
        pytest.param([b"  "], {}, id="spaces"),
        pytest.param([b"a"], {b"a": True}, id="a key alone is true"),
        pytest.param([b"a=?1, b=?0"], {b"a": True, b"b": False}, id="booleans"),
        pytest.param([b"a=0, b=-0, c=042, d=-7"], {b"a": 0, b"b": 0, b"c": 42, b"d": -7},
                     id="integers"),
        pytest.param([b"a=999999999999999"], {b"a": 999_999_999_999_999}, id="the greatest"),
        pytest.param([b'a="x, y", b=""'], {b"a": "x, y", b"b": ""}, id="strings"),
        pytest.param([rb'a="\"\\"'], {b"a": '"\\'}, id="escapes"),
        pytest.param([b"a=b, b=*c, c=t:/x%"],
                     {b"a": Token("b"), b"b": Token("*c"), b"c": Token("t:/x%")}, id="tokens"),
        pytest.param([b"a=1.5, b=-0.123"], {b"a": Unread.DECIMAL, b"b": Unread.DECIMAL},
                     id="decimals"),
        pytest.param([b"a=::, b=:aGk=:"], {b"a": Unread.BYTES, b"b": Unread.BYTES}, id="bytes"),
        pytest.param([b"a=@0, b=@-1"], {b"a": Unread.DATE, b"b": Unread.DATE}, id="dates"),
        pytest.param([b'a=%"f%c3%bc"'], {b"a": Unread.DISPLAY_STRING}, id="display strings"),
        pytest.param([b"a=(), b=( 1  x ), c=(\"y\";q=1 2.5);z"],
                     dict.fromkeys([b"a", b"b", b"c"], Unread.INNER_LIST), id="inner lists"),
        pytest.param([b"a=1;b=2;c, d; e=\"f\" ;g"], None, id="a space before a semicolon"),
        pytest.param([b"a=1;b=2;c, d;  e=\"f\";g"], {b"a": 1, b"d": True}, id="parameters"),
        pytest.param([b"a=1,b=2 \t,\t c=3"], {b"a": 1, b"b": 2, b"c": 3}, id="white space"),
        pytest.param([b"a=1", b"b=2"], {b"a": 1, b"b": 2}, id="two lines"),
        pytest.param([b"a=1, b=2, a=3"], {b"a": 3, b"b": 2}, id="the last of two"),
        pytest.param([b"*_-.9=1"], {b"*_-.9": 1}, id="what a key may have"),
        pytest.param([b"A=1"], None, id="a key in upper case"),
        pytest.param([b"1=1"], None, id="a digit first"),
        pytest.param([b"=1"], None, id="no key"),
        pytest.param([b"a="], None, id="no value"),
        pytest.param([b"a =1"], None, id="a space before the sign"),
        pytest.param([b"a= 1"], None, id="a space after it"),
        pytest.param([b"a=1,"], None, id="a comma at the end"),
        pytest.param([b",a=1"], None, id="a comma at the start"),
        pytest.param([b"a=1,,b=2"], None, id="an empty member"),
        pytest.param([b"a=1", b"", b"b=2"], None, id="an empty line between"),
        pytest.param([b"a=1 b=2"], None, id="no comma"),
        pytest.param([b"\ta=1"], None, id="a tab at the start"),
        pytest.param([b"a=1234567890123456"], None, id="sixteen digits"),
        pytest.param([b"a=1234567890123.0"], None, id="thirteen digits before the point"),
        pytest.param([b"a=1.2345"], None, id="four digits after it"),
        pytest.param([b"a=1."], None, id="a point at the end"),
        pytest.param([b"a=.5"], None, id="a point at the start"),
        pytest.param([b"a=--1"], None, id="two signs"),
        pytest.param([b"a=+1"], None, id="a plus"),
        pytest.param([b"a=?2"], None, id="neither true nor false"),
        pytest.param([b"a=?true"], None, id="true in words"),
        pytest.param([b'a="x'], None, id="a string left open"),
        pytest.param([rb'a="\x"'], None, id="an escape that is none"),
        pytest.param([b'a="\xc3\xbc"'], None, id="a string that is not ASCII"),
        pytest.param([b'a="\t"'], None, id="a tab in a string"),
        pytest.param([b'a="x', b'y"'], {b"a": "x, y"}, id="lines are joined before they are read"),
        pytest.param([b"a='x'"], None, id="single quotes"),
        pytest.param([b"a=:a"], None, id="bytes left open"),
        pytest.param([b"a=:a-b:"], None, id="bytes in another alphabet"),
        pytest.param([b"a=@1.5"], None, id="a date with a fraction"),
        pytest.param([b"a=@"], None, id="a date without a number"),
        pytest.param([b'a=%"%C3%BC"'], None, id="display string, upper case"),
        pytest.param([b'a=%"%c3"'], None, id="display string, broken UTF-8"),
        pytest.param([b'b;a=%"%ff"'], None, id="broken UTF-8 in a parameter"),
        pytest.param([b'a=("x%" b%ff "y")'], {b"a": Unread.INNER_LIST},
                     id="what looks like a display string between two strings"),
        pytest.param([b"a=(1 2"], None, id="an inner list left open"),
        pytest.param([b"a=(1,2)"], None, id="a comma in it"),
        pytest.param([b"a=(1(2))"], None, id="one in another"),
        pytest.param([b'a=("x""y")'], None, id="no space between"),
        pytest.param([b"a;B=1"], None, id="a parameter in upper case"),
        pytest.param([b"a;b="], None, id="a parameter without its value"),
        pytest.param([b"a;"], None, id="a parameter without its name"),
        pytest.param([b"a\x00"], None, id="a control character"),
    ],
)  # fmt: skip
def test_a_dictionary_is_valid_to_the_last_byte_or_nothing(lines, expected):
    found = parse_dictionary(lines)
    assert found == expected
    if found is not None:
        assert list(map(type, found.values())) == list(map(type, expected.values()))


def test_a_dictionary_has_a_bound():
    lines = [b"k%d" % number for number in range(MEMBERS_MAX)]
    assert len(parse_dictionary(lines)) == MEMBERS_MAX
    assert parse_dictionary([*lines, b"one-more"]) is None


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([], [], id="no line"),
        pytest.param([b'"a"'], ["a"], id="one"),
        pytest.param([b'"a", "b,c"', b'"d"'], ["a", "b,c", "d"], id="two lines"),
        pytest.param([b'"a";x=1;y, "b"'], ["a", "b"], id="parameters are ignored"),
        pytest.param([rb'"\"\\"'], ['"\\'], id="escapes"),
        pytest.param([b'"A", "a", "A"'], ["A", "a", "A"], id="case matters, repetition does not"),
        pytest.param([b'""'], [""], id="an empty string"),
        pytest.param([b"a"], None, id="a token"),
        pytest.param([b'"a", b'], None, id="a token among strings"),
        pytest.param([b'"a", 1'], None, id="a number among strings"),
        pytest.param([b'"a", ("b")'], None, id="an inner list among strings"),
        pytest.param([b'"a",'], None, id="a comma at the end"),
        pytest.param([b'"a" "b"'], None, id="no comma"),
        pytest.param([b'"a'], None, id="left open"),
        pytest.param([b'"\xff"'], None, id="not ASCII"),
    ],
)
def test_a_list_of_strings_is_of_strings_only(lines, expected):
    assert parse_string_list(lines) == expected


def test_what_rfc_9875_asks_for_fits_and_more_is_left_out():
    assert parse_string_list([quoted("g" * 32)] * 32) == ["g" * 32] * 32
    longest, too_long = "x" * STRING_CHARACTERS_MAX, "x" * (STRING_CHARACTERS_MAX + 1)
    assert parse_string_list([quoted(longest), quoted(too_long), b'"a"']) == [longest, "a"]
    numbers = [str(number) for number in range(STRINGS_MAX + 1)]
    assert parse_string_list(map(quoted, numbers)) == numbers[:-1]


PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)


@given(st.lists(PRINTABLE, max_size=5))
def test_written_strings_are_read_back(strings):
    assert parse_string_list(map(quoted, strings)) == strings
    assert parse_dictionary([b"key=" + quoted(string) for string in strings]) == (
        {b"key": strings[-1]} if strings else {}
    )


@pytest.mark.parametrize("text", ["ü", "a\n", "\t", "\x7f", "\x00", "\r"])
def test_only_printable_ascii_is_written(text):
    with pytest.raises(ValueError, match="printable"):
        quoted(text)


def test_a_string_is_written_in_quotes_with_escapes():
    assert quoted('a "b" \\c') == rb'"a \"b\" \\c"'
