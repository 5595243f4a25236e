"""The Range field of a request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.caching.syntax.ranges import POSITION_MAX, RANGES_MAX, parse_range


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(b"bytes=0-499", [(0, 499)], id="first and last"),
        pytest.param(b"bytes=500-", [(500, None)], id="an open end"),
        pytest.param(b"bytes=-200", [(None, 200)], id="a suffix"),
        pytest.param(b"bytes=-0", [(None, 0)], id="a suffix of nothing"),
        pytest.param(b"bytes=7-7", [(7, 7)], id="one byte"),
        pytest.param(b"bytes=0-0,-1", [(0, 0), (None, 1)], id="the first and the last byte"),
        pytest.param(b"bytes=5-6, 0-1 ,\t8-", [(5, 6), (0, 1), (8, None)], id="the order stays"),
        pytest.param(b"bytes=,0-1,,2-3,", [(0, 1), (2, 3)], id="empty elements"),
        pytest.param(b"bytes= 0-1", [(0, 1)], id="white space before the first"),
        pytest.param(b" BYTES=0-1 ", [(0, 1)], id="the unit in any case"),
        pytest.param(b"bytes=007-0010", [(7, 10)], id="leading zeros"),
        pytest.param(b"bytes=0-%d" % 10**30, [(0, POSITION_MAX)], id="beyond any body"),
        pytest.param(b"bytes=0-" + b"9" * 90_000, [(0, POSITION_MAX)], id="more than int() reads"),
        pytest.param(b"bytes=" + b"0" * 90_000 + b"5-6", [(5, 6)], id="very many zeros"),
        pytest.param(b"bytes=-" + b"9" * 40, [(None, POSITION_MAX)], id="a suffix of everything"),
        pytest.param(b"bytes=%d-" % 10**30, [(POSITION_MAX, None)], id="a start beyond any body"),
        pytest.param(b"", None, id="nothing"),
        pytest.param(b"bytes", None, id="the unit alone"),
        pytest.param(b"bytes=", None, id="no range"),
        pytest.param(b"bytes=,", None, id="empty elements only"),
        pytest.param(b"bytes=-", None, id="a dash"),
        pytest.param(b"bytes=5", None, id="no dash"),
        pytest.param(b"bytes=0-1-2", None, id="two dashes"),
        pytest.param(b"bytes=--5", None, id="a negative suffix"),
        pytest.param(b"bytes=5-4", None, id="backwards"),
        pytest.param(b"bytes=%d-%d" % (10**30 + 1, 10**30), None, id="backwards, huge"),
        pytest.param(b"bytes=0-1,5-4", None, id="one of two backwards"),
        pytest.param(b"bytes=0-1,x", None, id="one of two junk"),
        pytest.param(b"bytes=0 - 1", None, id="white space inside"),
        pytest.param(b"bytes=+0-1", None, id="a sign"),
        pytest.param(b"bytes=0x0-1", None, id="hexadecimal"),
        pytest.param(b"bytes=0_0-1", None, id="an underscore, which int() takes"),
        pytest.param(b"bytes =0-1", None, id="white space after the unit"),
        pytest.param(b"bytes:0-1", None, id="a colon"),
        pytest.param(b"items=0-1", None, id="another unit"),
        pytest.param(b"xbytes=0-1", None, id="a unit that ends so"),
        pytest.param(b"0-1", None, id="no unit"),
        pytest.param(b"bytes=0-1;2-3", None, id="semicolons"),
        pytest.param("bytes=\u0660-\u0661".encode(), None, id="digits of another script"),
    ],
)
def test_ranges_are_read_or_the_field_is_ignored(value, expected):
    assert parse_range(value) == expected


SPECS = st.one_of(
    st.tuples(st.integers(0, 99), st.integers(0, 99)).map(lambda pair: (pair[0], sum(pair))),
    st.tuples(st.integers(0, POSITION_MAX), st.none()),
    st.tuples(st.none(), st.integers(0, POSITION_MAX)),
)


def written(spec):
    return "-".join("" if position is None else str(position) for position in spec).encode()


@given(st.lists(SPECS, min_size=1, max_size=RANGES_MAX), st.sampled_from([b",", b", ", b",,"]))
def test_written_ranges_are_read_back(specs, separator):
    assert parse_range(b"bytes=" + separator.join(map(written, specs))) == specs


def test_more_ranges_than_a_reader_needs_are_ignored():
    assert parse_range(b"bytes=" + b"0-0," * RANGES_MAX) == [(0, 0)] * RANGES_MAX
    assert parse_range(b"bytes=" + b"0-0," * RANGES_MAX + b"1-1") is None
    assert parse_range(b"bytes=0-0" + b"," * 10_000) is None
