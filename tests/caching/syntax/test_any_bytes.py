"""Any bytes in: a value or nothing, never an error, and never more than linear work."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.caching.syntax.dates import parse_http_date
from perf_middleware.caching.syntax.directives import (
    parse_delta_seconds,
    parse_request_directives,
    parse_response_directives,
    parse_targeted,
)
from perf_middleware.caching.syntax.etags import parse_etag, parse_etag_list
from perf_middleware.caching.syntax.lists import members, unquote
from perf_middleware.caching.syntax.ranges import parse_range
from perf_middleware.caching.syntax.structured import parse_dictionary, parse_string_list

OF_LINES = (
    members,
    parse_response_directives,
    parse_request_directives,
    lambda lines: parse_request_directives([], lines),
    parse_targeted,
    parse_dictionary,
    parse_string_list,
    parse_etag_list,
)
OF_VALUES = (
    unquote,
    parse_delta_seconds,
    parse_etag,
    parse_range,
    lambda value: parse_http_date(value, now_s=1_700_000_000),
)

# Pieces of real fields put together anyhow: most of the interesting inputs are nearly valid.
PIECES = st.sampled_from(
    [b"max-age", b"=", b"60", b",", b" ", b"\t", b'"', b"\\", b";", b"no-cache", b"private", b"*",
     b"W/", b"(", b")", b"?1", b"?0", b"@1", b":AA=:", b'%"', b"%ff", b"%c3%a9", b"-", b"1.5",
     b"bytes=", b"a", b"min-fresh", b"max-stale", b"\xff", b"\x00", b"9" * 5_000, b"GMT",
     b"Sun, 06 Nov 1994", b"08:49:37"]
)  # fmt: skip
NEARLY_VALID = st.lists(PIECES, max_size=12).map(b"".join)
ANY = st.binary(max_size=60) | NEARLY_VALID


@settings(deadline=None)
@given(st.lists(ANY, max_size=3))
def test_no_bytes_make_a_parser_raise(lines):
    for parse in OF_LINES:
        parse(lines)
    for parse in OF_VALUES:
        parse(lines[0] if lines else b"")


LONG_BYTES = 128 * 1024

LONG = {
    "commas": b",",
    "elements": b"a,",
    "open quotes": b'"a,',
    "quotes": b'"',
    "empty strings": b'"",',
    "escaped quotes": b'"\\",',
    "backslashes": b"\\",
    "quotes that escape the next one": b'"\\',
    "escaped quotes in a row": b'\\"',
    "white space": b" ",
    "white space between": b'"a" ',
    "digits": b"9",
    "weak marks": b"W/",
    "weak tags left open": b'W/"',
    "entity tags": b'"a",',
    "inner lists": b"a=(1 ",
    "parameters": b";a=1",
    "display strings": b'%"%c3%a9"',
    "directives": b"max-age=1,",
    "broken directives": b"max-age ",
    "ranges": b"0-0,",
    "inner items": b"1 ",
    "inner strings": b'"x" ',
}
OPENINGS = (b"", b'"', b"a=(", b'a="', b'a=%"', b"a", b"bytes=", b'no-cache="', b"max-age=", b"(1")


@pytest.mark.parametrize("piece", LONG.values(), ids=LONG.keys())
@pytest.mark.usefixtures("little_work")
def test_a_long_field_takes_no_more_than_its_length(piece):
    repeated = piece * (LONG_BYTES // len(piece))
    for opening in OPENINGS:
        line = opening + repeated
        for parse in OF_LINES:
            parse([line])
        for parse in OF_VALUES:
            parse(line)
