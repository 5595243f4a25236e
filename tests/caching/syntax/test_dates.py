"""HTTP dates: three formats in, one out."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.caching.syntax.dates import format_http_date, parse_http_date

EXAMPLE_S = 784_111_777  # the date of RFC 9110 §5.6.7


def at(*when):
    return int(datetime(*when, tzinfo=UTC).timestamp())


NOW_S = at(2026, 11, 21, 12)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 GMT", id="IMF-fixdate"),
        pytest.param(b"Sunday, 06-Nov-94 08:49:37 GMT", id="rfc850"),
        pytest.param(b"Sun Nov  6 08:49:37 1994", id="asctime"),
        pytest.param(b"Sun Nov 06 08:49:37 1994", id="asctime with a zero"),
        pytest.param(b" Sun, 06 Nov 1994 08:49:37 GMT\t", id="white space around"),
        pytest.param(b"Mon, 06 Nov 1994 08:49:37 GMT", id="the wrong day of the week"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 gmt", id="a zone in lower case"),
        pytest.param(b"sun, 06 nov 1994 08:49:37 GMT", id="names in lower case"),
        pytest.param(b"SUNDAY, 06-NOV-94 08:49:37 GMT", id="rfc850 in capitals"),
        pytest.param(b"sun nov  6 08:49:37 1994", id="asctime in lower case"),
    ],
)
def test_a_date_is_read_in_all_three_formats(value):
    assert parse_http_date(value, now_s=NOW_S) == EXAMPLE_S


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(b"Thu, 01 Jan 1970 00:00:00 GMT", 0, id="the epoch"),
        pytest.param(b"Wed, 31 Dec 1969 23:59:59 GMT", -1, id="before the epoch"),
        pytest.param(b"Tue, 29 Feb 2000 00:00:00 GMT", at(2000, 2, 29), id="a leap day"),
        pytest.param(b"Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799, id="the last second"),
        pytest.param(b"Mon, 01 Jan 0001 00:00:00 GMT", -62_135_596_800, id="the first one"),
        pytest.param(b"Sat, 31 Dec 2016 23:59:60 GMT", at(2017, 1, 1), id="a leap second"),
        pytest.param(b"Sat Dec 31 23:59:60 2016", at(2017, 1, 1), id="a leap second, asctime"),
    ],
)
def test_the_edges_of_the_calendar_are_dates(value, expected):
    assert parse_http_date(value, now_s=NOW_S) == expected


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"0", id="zero, as Expires often says"),
        pytest.param(b"-1", id="minus one"),
        pytest.param(b"784111777", id="Unix seconds"),
        pytest.param(b"1994-11-06T08:49:37Z", id="ISO 8601"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:37", id="no zone"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 UTC", id="UTC"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 +0000", id="an offset"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 EST", id="another zone"),
        pytest.param(b"Xyz, 06 Nov 1994 08:49:37 GMT", id="no day of the week at all"),
        pytest.param(b"06 Nov 1994 08:49:37 GMT", id="without the day of the week"),
        pytest.param(b"Sun, 6 Nov 1994 08:49:37 GMT", id="one digit of the day"),
        pytest.param(b"Sun, 06 Nov 94 08:49:37 GMT", id="two digits of the year"),
        pytest.param(b"Sun, 06-Nov-1994 08:49:37 GMT", id="the Netscape form"),
        pytest.param(b"Sun, 06-Nov-94 08:49:37 GMT", id="rfc850 with a short day"),
        pytest.param(b"Sun, 06 Nov 1994 8:49:37 GMT", id="one digit of the hour"),
        pytest.param(b"Sun, 06 Nov 1994 24:00:00 GMT", id="hour 24"),
        pytest.param(b"Sun, 06 Nov 1994 08:60:00 GMT", id="minute 60"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:60 GMT", id="second 60 in another minute"),
        pytest.param(b"Sun, 06 Nov 1994 23:59:61 GMT", id="second 61"),
        pytest.param(b"Sun, 00 Nov 1994 08:49:37 GMT", id="day 0"),
        pytest.param(b"Thu, 31 Nov 1994 08:49:37 GMT", id="31 November"),
        pytest.param(b"Wed, 30 Feb 2000 08:49:37 GMT", id="30 February"),
        pytest.param(b"Mon, 29 Feb 1900 08:49:37 GMT", id="29 February of no leap year"),
        pytest.param(b"Sun, 06 Nov 0000 08:49:37 GMT", id="year 0"),
        pytest.param(b"Sun Nov   08:49:37 1994", id="asctime without a day"),
        pytest.param(b"Sun Nov  6 08:49:37 1994 GMT", id="asctime with a zone"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 GMT, x", id="two values joined"),
        pytest.param("Sun, ٠٦ Nov 1994 08:49:37 GMT".encode(), id="digits of another script"),
    ],
)
def test_what_is_no_date_is_none(value):
    assert parse_http_date(value, now_s=NOW_S) is None


@pytest.mark.parametrize(
    ("value", "now_s", "expected"),
    [
        pytest.param(b"Monday, 01-Jan-70 00:00:00 GMT", NOW_S, at(2070, 1, 1), id="44 years on"),
        pytest.param(b"Monday, 21-Nov-76 12:00:00 GMT", NOW_S, at(2076, 11, 21, 12), id="50"),
        pytest.param(b"Monday, 21-Nov-76 12:00:01 GMT", NOW_S, at(1976, 11, 21, 12, 0, 1),
                     id="a second more than 50 years: the past"),
        pytest.param(b"Monday, 01-Jan-77 00:00:00 GMT", NOW_S, at(1977, 1, 1), id="51: the past"),
        pytest.param(b"Monday, 01-Jan-26 00:00:00 GMT", NOW_S, at(2026, 1, 1), id="this year"),
        pytest.param(b"Monday, 01-Jan-05 00:00:00 GMT", at(2099, 6, 1), at(2105, 1, 1),
                     id="over the turn of a century"),
        pytest.param(b"Monday, 01-Jan-99 00:00:00 GMT", at(2001, 1, 1), at(1999, 1, 1),
                     id="back over the turn of a century"),
        pytest.param(b"Monday, 29-Feb-00 00:00:00 GMT", NOW_S, at(2000, 2, 29), id="a leap day"),
        pytest.param(b"Monday, 29-Feb-25 00:00:00 GMT", NOW_S, None, id="no leap year"),
    ],
)  # fmt: skip
def test_two_digits_of_a_year_are_at_most_fifty_years_ahead(value, now_s, expected):
    assert parse_http_date(value, now_s=now_s) == expected


@given(st.integers(-62_135_596_800, 253_402_300_799))
def test_a_formatted_date_is_read_back(unix_s):
    formatted = format_http_date(unix_s)
    assert parse_http_date(formatted, now_s=NOW_S) == unix_s
    when = datetime.fromtimestamp(unix_s, UTC)
    # Not strftime's %Y, which some platforms do not pad.
    assert formatted == when.strftime(f"%a, %d %b {when.year:04} %H:%M:%S GMT").encode()


@given(st.integers(at(1977, 1, 1), at(2076, 11, 1)))
def test_the_old_formats_say_the_same(unix_s):
    when = datetime.fromtimestamp(unix_s, UTC)
    rfc850 = when.strftime("%A, %d-%b-%y %H:%M:%S GMT").encode()
    asctime = when.strftime(f"%a %b {when.day:2} %H:%M:%S %Y").encode()
    assert parse_http_date(rfc850, now_s=NOW_S) == unix_s
    assert parse_http_date(asctime, now_s=NOW_S) == unix_s


@pytest.mark.parametrize("unix_s", [-(10**30), 10**30])
def test_what_no_year_of_four_digits_holds_is_moved_to_the_edge(unix_s):
    edge = -62_135_596_800 if unix_s < 0 else 253_402_300_799
    assert format_http_date(unix_s) == format_http_date(edge)
    assert (
        parse_http_date(b"Monday, 01-Jan-70 00:00:00 GMT", now_s=unix_s) is not None or unix_s < 0
    )
