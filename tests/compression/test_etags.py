"""Entity tags of coded answers, there and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.compression.etags import (
    coded_etag,
    etag_not_modified,
    suffix_of,
    without_coding,
)

GZIP, BR, ZSTD = (suffix_of(coding) for coding in ("gzip", "br", "zstd"))
ALL = (ZSTD, BR, GZIP)


@pytest.mark.parametrize(
    ("etag", "expected"),
    [
        pytest.param(b'"abc"', b'W/"abc~pm-gzip"', id="strong"),
        pytest.param(b'""', b'W/"~pm-gzip"', id="empty"),
        pytest.param(b'W/"abc"', b'W/"abc"', id="a weak one means the same in every coding"),
        pytest.param(b"abc", b"abc", id="no quotes: no tag"),
        pytest.param(b'"', b'"', id="one quote: no tag"),
        pytest.param(b'"abc', b'"abc', id="left open"),
        pytest.param(b"", b"", id="nothing"),
    ],
)
def test_a_strong_tag_is_another_in_each_coding(etag, expected):
    assert coded_etag(etag, GZIP) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(b'W/"abc~pm-gzip"', b'"abc"', id="one"),
        pytest.param(b'"abc~pm-gzip"', b'"abc"', id="made strong on its way"),
        pytest.param(b'W/"a", W/"b~pm-br"', b'W/"a", "b"', id="beside a weak one of the app"),
        pytest.param(b'"a~pm-br", "b~pm-gzip","c"', b'"a", "b","c"', id="several codings"),
        pytest.param(b'"abc-gzip"', b'"abc-gzip"', id="an app's own tag that only looks like it"),
        pytest.param(b'"~pm-gzip abc"', b'"~pm-gzip abc"', id="not at its end"),
        pytest.param(b'"abc~pm-gzip', b'"abc~pm-gzip', id="left open"),
        pytest.param(b'"abc~pm-deflate"', b'"abc~pm-deflate"', id="no coding of ours"),
        pytest.param(b"*", b"*", id="any"),
        pytest.param(b"", b"", id="nothing"),
    ],
)
def test_the_app_is_asked_with_its_own_tags(value, expected):
    assert without_coding(value, ALL) == expected


def test_a_coding_that_is_not_given_stays():
    assert without_coding(b'"a~pm-br", "b~pm-gzip"', [GZIP]) == b'"a~pm-br", "b"'


@pytest.mark.parametrize(
    ("etag", "asked", "expected"),
    [
        pytest.param(b'"a"', b'W/"a~pm-gzip"', b'W/"a~pm-gzip"', id="the tag that was asked with"),
        pytest.param(
            b'"a"', b'W/"a~pm-gzip", W/"a~pm-zstd"', b'W/"a~pm-zstd"', id="the best of two"
        ),
        pytest.param(b'"a"', b'"b~pm-gzip", "a"', b'"a"', id="only its own"),
        pytest.param(b'W/"a"', b'"a~pm-gzip"', b'W/"a"', id="weak"),
        pytest.param(b'"a"', b'"a~pm-br"', b'W/"a~pm-br"', id="made strong on its way"),
        pytest.param(b'"a"', b'"ba~pm-gzip"', b'"a"', id="the end of another tag"),
    ],
)
def test_a_304_names_the_tag_that_the_client_has(etag, asked, expected):
    assert etag_not_modified(etag, asked, ALL) == expected


TAGS = st.text("!#,;~-pmgzi/ab", max_size=8).map(lambda text: b'"' + text.encode() + b'"')


@given(TAGS.filter(lambda tag: b"~pm-" not in tag), st.sampled_from(ALL))
def test_there_and_back_is_the_same(tag, suffix):
    coded = coded_etag(tag, suffix)
    assert coded != tag
    assert without_coding(coded, ALL) == tag
    assert etag_not_modified(tag, coded, ALL) == coded


@given(st.binary(max_size=40))
def test_any_bytes_are_taken(value):
    assert isinstance(coded_etag(value, GZIP), bytes)
    assert without_coding(value, ALL).count(b'"') == value.count(b'"')
