"""Cache directives of responses and requests, and of targeted fields."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.caching.syntax.directives import (
    DELTA_SECONDS_MAX,
    DIRECTIVES_MAX,
    FIELDS_MAX,
    NO_DIRECTIVES,
    NO_REQUEST_DIRECTIVES,
    RequestDirectives,
    ResponseDirectives,
    parse_delta_seconds,
    parse_request_directives,
    parse_response_directives,
    parse_targeted,
)


def said(**directives):
    return ResponseDirectives(**directives)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(b"0", 0, id="zero"),
        pytest.param(b"3600", 3600, id="an hour"),
        pytest.param(b"0060", 60, id="leading zeros"),
        pytest.param(b'"60"', 60, id="in quotes"),
        pytest.param(rb'"\6\0"', 60, id="in quotes, escaped for no reason"),
        pytest.param(b"2147483647", 2**31 - 1, id="just below the cap"),
        pytest.param(b"2147483648", 2**31, id="the cap"),
        pytest.param(b"2147483649", 2**31, id="just above the cap"),
        pytest.param(b"9" * 100_000, 2**31, id="more digits than int() reads"),
        pytest.param(b"0" * 100_000 + b"7", 7, id="very many zeros"),
        pytest.param(b"0" * 100_000, 0, id="nothing but zeros"),
        pytest.param(b"", None, id="nothing"),
        pytest.param(b'""', None, id="nothing in quotes"),
        pytest.param(b"-1", None, id="negative"),
        pytest.param(b"+1", None, id="a sign"),
        pytest.param(b"1.0", None, id="a fraction"),
        pytest.param(b"1e3", None, id="an exponent"),
        pytest.param(b"0x10", None, id="hexadecimal"),
        pytest.param(b"1_0", None, id="an underscore, which int() takes"),
        pytest.param(b"1 0", None, id="a space"),
        pytest.param(b'" 1"', None, id="a space in quotes"),
        pytest.param(b'"1', None, id="left open"),
        pytest.param("٣".encode(), None, id="digits of another script"),
        pytest.param(b"\xb2", None, id="a superscript in Latin-1"),
    ],
)
def test_delta_seconds_are_digits_and_capped(value, expected):
    assert parse_delta_seconds(value) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([b"max-age=60"], said(max_age=60), id="max-age"),
        pytest.param([b"s-maxage=0, max-age=60"], said(s_maxage=0, max_age=60), id="s-maxage"),
        pytest.param(
            [b"no-store, no-cache, private, public, must-revalidate, proxy-revalidate",
             b"must-understand, no-transform, immutable"],
            said(no_store=True, no_cache=True, private=True, public=True, must_revalidate=True,
                 proxy_revalidate=True, must_understand=True),
            id="every flag",
        ),
        pytest.param([b"PUBLIC, Max-Age=5"], said(public=True, max_age=5), id="names in any case"),
        pytest.param([b"public", b"", b"max-age=5"], said(public=True, max_age=5), id="lines"),
        pytest.param([b",, public ,"], said(public=True), id="empty elements"),
        pytest.param([b"foo, bar=1, baz=\"x\""], said(), id="extensions alone are directives"),
        pytest.param([b"stale-while-revalidate=30, stale-if-error=\"40\""],
                     said(stale_while_revalidate=30, stale_if_error=40), id="stale-*"),
        pytest.param([b"max-age=99999999999"], said(max_age=2**31), id="huge is the cap"),
    ],
)  # fmt: skip
def test_a_response_says_what_it_permits(lines, expected):
    assert parse_response_directives(lines) == expected


@pytest.mark.parametrize("lines", [[], [b""], [b" , "], [b"", b","]])
def test_without_directives_there_are_none(lines):
    assert parse_response_directives(lines) is NO_DIRECTIVES


@pytest.mark.parametrize(
    ("line", "max_age", "s_maxage"),
    [
        pytest.param(b"max-age=60, max-age=60", 60, None, id="the same twice"),
        pytest.param(b"max-age=60, max-age=30", 30, None, id="the smaller of two"),
        pytest.param(b"max-age=30, MAX-AGE=60", 30, None, id="whichever comes first"),
        pytest.param(b"max-age=60, max-age=x", 0, None, id="one of two not valid"),
        pytest.param(b"max-age", 0, None, id="no value"),
        pytest.param(b"max-age=", 0, None, id="an empty value"),
        pytest.param(b'max-age=""', 0, None, id="an empty string"),
        pytest.param(b"max-age=-5", 0, None, id="negative"),
        pytest.param(b"max-age=5.5", 0, None, id="a fraction"),
        pytest.param(b"max-age=5s", 0, None, id="with a unit"),
        pytest.param(b"max-age = 60", 0, None, id="spaces around the sign"),
        pytest.param(b"max-age:60", 0, None, id="a colon"),
        pytest.param(b"max-age 60", 0, None, id="a space"),
        pytest.param(b"max-age=60 60", 0, None, id="two values"),
        pytest.param(b'max-age="60', 0, None, id="a string left open"),
        pytest.param(b"max-age='60'", 0, None, id="single quotes"),
        pytest.param(b"max-age==60", 0, None, id="two signs"),
        pytest.param(b"max-age=60; public", 0, None, id="a semicolon"),
        pytest.param(b"s-maxage=x, max-age=60", 60, 0, id="s-maxage not valid"),
        pytest.param(b"s-maxage=10, s-maxage=20", None, 10, id="the smaller s-maxage"),
        pytest.param(b"s-maxage=60, s-maxage 5", 0, 0, id="s-maxage in a broken element"),
        pytest.param(b"s-maxage=60, max-age 5", 0, 0, id="some lifetime in a broken element"),
        pytest.param(b"s-maxage 60", 0, None, id="a broken s-maxage grants no permission"),
        pytest.param(b"x-max-age=60, max-age2=6", None, None, id="other names"),
    ],
)
def test_a_lifetime_in_doubt_is_stale(line, max_age, s_maxage):
    directives = parse_response_directives([line])
    assert (directives.max_age, directives.s_maxage) == (max_age, s_maxage)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"stale-if-error=x, stale-while-revalidate=", id="not valid"),
        pytest.param(b"stale-if-error, stale-while-revalidate", id="no value"),
        pytest.param(b"stale-if-error=-1, stale-while-revalidate=1.5", id="not whole seconds"),
        pytest.param(b"stale-if-error=9, stale-if-error=x, stale-while-revalidate 5", id="broken"),
    ],
)
def test_an_unclear_permission_to_be_stale_is_none(line):
    assert parse_response_directives([line]) == said()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(b'ext="no-store, max-age=5"', said(), id="directives in a string"),
        pytest.param(b'ext="a;no-store", public', said(public=True), id="a semicolon in a string"),
        pytest.param(rb'ext="\", no-store, \""', said(), id="escaped quotes"),
        pytest.param(b"no-store-really, xno-cache", said(), id="names that begin or end so"),
        pytest.param(b'ext="x, no-store', said(no_store=True), id="a string left open"),
        pytest.param(b'ext="x, max-age=5, public', said(max_age=0, proxy_revalidate=True),
                     id="which grants nothing"),
        pytest.param(b'a"b, private, c"', said(private=True), id="a quote inside a token"),
        pytest.param(b"no-store; max-age=5",
                     said(no_store=True, max_age=0, proxy_revalidate=True), id="semicolons"),
        pytest.param(b"public; immutable", said(), id="permissions with semicolons"),
        pytest.param(b"must-revalidate; x", said(proxy_revalidate=True),
                     id="must-revalidate forbids, but permits no credentials"),
        pytest.param(b"must-revalidate=1", said(proxy_revalidate=True), id="with an argument"),
        pytest.param(b"public=1, immutable=1, must-understand=1", said(),
                     id="permissions with an argument"),
        pytest.param(b"no-store=1, no-transform=x", said(no_store=True),
                     id="prohibitions with an argument"),
        pytest.param(b"=no-store", said(no_store=True), id="no name"),
        pytest.param(b"no-store\x00", said(no_store=True), id="a control character"),
    ],
)  # fmt: skip
def test_a_broken_element_forbids_and_grants_nothing(line, expected):
    assert parse_response_directives([line]) == expected


@pytest.mark.parametrize(
    ("argument", "whole", "fields"),
    [
        pytest.param(b"", True, set(), id="unqualified"),
        pytest.param(b'="Set-Cookie"', False, {b"set-cookie"}, id="one field, lower case"),
        pytest.param(b'="a, b"', False, {b"a", b"b"}, id="two fields"),
        pytest.param(b'="a,,b,"', False, {b"a", b"b"}, id="empty elements"),
        pytest.param(b"=set-cookie", False, {b"set-cookie"}, id="a token"),
        pytest.param(b'=""', True, set(), id="an empty string"),
        pytest.param(b'=" , "', True, set(), id="no field in the string"),
        pytest.param(b"=", True, set(), id="an empty argument"),
        pytest.param(b'="a', True, set(), id="left open"),
        pytest.param(b'="a b"', True, set(), id="no field name"),
        pytest.param(b'="a, b c"', True, set(), id="one of two no field name"),
        pytest.param(b'="*"', True, set(), id="a star is every field"),
        pytest.param(b"=a b", True, set(), id="two tokens"),
        pytest.param(b"=a:b", True, set(), id="no token"),
    ],
)
def test_the_qualified_form_names_fields_or_means_all(argument, whole, fields):
    no_cache = parse_response_directives([b"no-cache" + argument])
    assert (no_cache.no_cache, no_cache.no_cache_fields) == (whole, fields)
    assert not no_cache.private
    private = parse_response_directives([b"private" + argument])
    assert (private.private, private.private_fields) == (whole, fields)
    assert not private.no_cache


def test_a_qualified_form_of_more_fields_than_anyone_names_means_all():
    named = b",".join(b"f%d" % number for number in range(FIELDS_MAX))
    assert len(parse_response_directives([b'private="%b"' % named]).private_fields) == FIELDS_MAX
    assert parse_response_directives([b'private="%b,x"' % named]) == said(private=True)


def test_qualified_forms_add_up_beside_the_unqualified_one():
    directives = parse_response_directives([b'private="a", private=b', b"private, no-cache=c"])
    assert directives == said(
        private=True, private_fields=frozenset({b"a", b"b"}), no_cache_fields=frozenset({b"c"})
    )


STRICT = (b"no-store", b"no-cache", b"private")


@given(st.binary(max_size=20), st.sampled_from(STRICT), st.booleans())
def test_nothing_on_another_line_takes_a_prohibition_back(noise, name, first):
    lines = [name, noise] if first else [noise, name]
    assert getattr(parse_response_directives(lines), name.decode().replace("-", "_"))


@given(st.text('abc"\\,;= max-age=5', max_size=20).map(str.encode))
def test_no_noise_makes_a_stale_response_fresh(noise):
    directives = parse_response_directives([b"max-age=0", noise])
    assert directives.max_age == 0


def test_more_directives_than_anyone_means_are_not_read():
    many = [b"a"] * DIRECTIVES_MAX
    assert parse_response_directives([b"public", *many[1:]]) == said(public=True)
    assert parse_response_directives([b"public", *many]) == said(no_store=True)
    assert parse_request_directives(many) == NO_REQUEST_DIRECTIVES
    assert parse_request_directives([*many, b"a"]) == RequestDirectives(
        no_cache=True, no_store=True
    )


@pytest.mark.parametrize(
    ("lines", "pragma", "expected"),
    [
        pytest.param([], [], {}, id="nothing"),
        pytest.param([b"max-age=0"], [], {"max_age": 0}, id="a reload"),
        pytest.param([b"Max-Age=\"60\""], [], {"max_age": 60}, id="in quotes"),
        pytest.param([b"max-age=x"], [], {"max_age": 0}, id="max-age not valid"),
        pytest.param([b"max-age"], [], {"max_age": 0}, id="max-age without a value"),
        pytest.param([b"max-age=9, max-age=3"], [], {"max_age": 3}, id="the smaller max-age"),
        pytest.param([b"max-stale"], [], {"max_stale": DELTA_SECONDS_MAX}, id="any staleness"),
        pytest.param([b"max-stale=5"], [], {"max_stale": 5}, id="max-stale"),
        pytest.param([b"max-stale, max-stale=5"], [], {"max_stale": 5}, id="both: the smaller"),
        pytest.param([b"max-stale=x"], [], {}, id="max-stale not valid"),
        pytest.param([b"max-stale="], [], {}, id="max-stale of nothing"),
        pytest.param([b"max-stale=5, max-stale=x"], [], {}, id="one of two not valid"),
        pytest.param([b"max-stale; x"], [], {}, id="max-stale in a broken element"),
        pytest.param([b"min-fresh=5"], [], {"min_fresh": 5}, id="min-fresh"),
        pytest.param([b"min-fresh=5, min-fresh=9"], [], {"min_fresh": 9}, id="the greater one"),
        pytest.param([b"min-fresh=x"], [], {"no_cache": True}, id="min-fresh not valid"),
        pytest.param([b"min-fresh"], [], {"no_cache": True}, id="min-fresh without a value"),
        pytest.param([b"min-fresh 5"], [], {"no_cache": True}, id="min-fresh in a broken element"),
        pytest.param([b"no-cache, no-store", b"no-transform,only-if-cached"], [],
                     {"no_cache": True, "no_store": True,
                      "only_if_cached": True}, id="the flags"),
        pytest.param([b"no-cache; no-store"], [], {"no_cache": True, "no_store": True},
                     id="with a semicolon"),
        pytest.param([b"stale-if-error=60"], [], {"stale_if_error": 60}, id="stale-if-error"),
        pytest.param([b"stale-if-error"], [], {}, id="stale-if-error without a value"),
        pytest.param([b'ext="no-cache, max-age=0"'], [], {}, id="directives in a string"),
        pytest.param([b"s-maxage=5, private, public"], [], {}, id="directives of responses"),
        pytest.param([], [b"no-cache"], {"no_cache": True}, id="Pragma alone"),
        pytest.param([], [b"x=1, NO-CACHE"], {"no_cache": True}, id="Pragma among others"),
        pytest.param([], [b'x="no-cache"', b"nope"], {}, id="another Pragma"),
        pytest.param([b"max-age=5"], [b"no-cache"], {"max_age": 5}, id="Cache-Control wins"),
        pytest.param([b""], [b"no-cache"], {}, id="Cache-Control wins, though empty"),
    ],
)  # fmt: skip
def test_a_request_says_what_it_wants(lines, pragma, expected):
    assert parse_request_directives(lines, pragma) == RequestDirectives(**expected)


def test_lines_may_come_from_an_iterator():
    assert parse_request_directives(iter([b"no-store"]), iter([b"no-cache"])).no_store
    assert parse_response_directives(iter([b"no-store"])).no_store
    targeted = parse_targeted(iter([b"no-store"]))
    assert targeted is not None
    assert targeted.no_store


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([b"max-age=60"], said(max_age=60), id="an integer"),
        pytest.param([b"max-age=60", b"s-maxage=5"], said(max_age=60, s_maxage=5), id="two lines"),
        pytest.param([b"max-age=60, max-age=5"], said(max_age=5), id="the last of two"),
        pytest.param([b"max-age=5, max-age=60"], said(max_age=60), id="the last, also if greater"),
        pytest.param([b"max-age=60;x=1;y, public;z"], said(max_age=60, public=True),
                     id="parameters are ignored"),
        pytest.param([b"no-store=?1, public=?0"], said(no_store=True), id="booleans"),
        pytest.param([b"none"], said(), id="an unknown directive is an answer, as in §3.1"),
        pytest.param([b"max-age=999999999999999"], said(max_age=2**31), id="huge is the cap"),
        pytest.param([b"max-age=-1"], said(max_age=0, proxy_revalidate=True),
                     id="negative: stale, and never used so"),
        pytest.param([b'max-age="60", s-maxage=6.5, stale-if-error=abc, stale-while-revalidate'],
                     said(), id="seconds of other types"),
        pytest.param([b"max-age=(1 2)"], said(), id="seconds in an inner list"),
        pytest.param([b"max-age=?1"], said(), id="true is not one second"),
        pytest.param([b'private="set-cookie", no-cache="a, b"'],
                     said(private_fields=frozenset({b"set-cookie"}),
                          no_cache_fields=frozenset({b"a", b"b"})), id="the qualified forms"),
        pytest.param([b"private=Set-Cookie"], said(private_fields=frozenset({b"set-cookie"})),
                     id="a token names a field"),
        pytest.param([b'private="", no-cache="a b"'], said(private=True, no_cache=True),
                     id="not valid: unqualified"),
        pytest.param([b"no-store=1, private=(a b), no-cache=:AA==:"],
                     said(no_store=True, private=True, no_cache=True), id="prohibitions"),
        pytest.param([b"must-revalidate=1, public=1"], said(proxy_revalidate=True),
                     id="permissions by the letter"),
        pytest.param([b"must-revalidate=1, proxy-revalidate=?0"], said(proxy_revalidate=True),
                     id="two members for one directive"),
        pytest.param([], None, id="no line"),
        pytest.param([b""], None, id="empty"),
        pytest.param([b"   "], None, id="spaces"),
        pytest.param([b"max-age=60,"], None, id="a comma at the end"),
        pytest.param([b"max-age=60, , public"], None, id="an empty member"),
        pytest.param([b"max-age=60", b""], None, id="an empty line"),
        pytest.param([b"Max-Age=60"], None, id="a key in upper case"),
        pytest.param([b"max-age=60; public=\xff"], None, id="not ASCII"),
        pytest.param([b"max-age=1234567890123456"], None, id="an integer of 16 digits"),
        pytest.param([b"max-age = 60"], None, id="spaces around the sign"),
        pytest.param([b"no-store max-age=5"], None, id="no comma"),
    ],
)  # fmt: skip
def test_a_targeted_field_is_a_dictionary_or_nothing(lines, expected):
    assert parse_targeted(lines) == expected
