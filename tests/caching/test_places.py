"""The names of records and indexes in a store for all processes."""

import pytest

from perf_middleware.caching.places import (
    NAME_BYTES_MAX,
    URL,
    index_name,
    matches_index,
    parts_of,
    place_of,
    record_key,
)
from perf_middleware.caching.selection import secondary_key
from perf_middleware.path_patterns import PathPattern

LONG = b"/" + b"a" * NAME_BYTES_MAX


def test_a_short_name_is_readable_and_a_long_one_a_digest():
    assert record_key(b"https://h\n/a") == b"https://h\n/a"
    assert index_name(URL, b"/a?q") == b"u:/a?q"
    digested = record_key(LONG)
    assert digested.startswith(b"#")
    assert len(digested) < 64
    assert digested != record_key(LONG + b"a")


@pytest.mark.parametrize(
    ("target", "place"),
    [(b"http://h/a?q=1", b"/a"), (b"http://h/a", b"/a"), (b"http://h/", b"/")],
)
def test_all_that_one_purge_by_url_concerns_is_in_one_place(target, place):
    assert place_of(target) == place


@pytest.mark.parametrize(
    ("name", "matches"),
    [
        (b"u:/items/5", True),
        (b"u:/items/5?p=1", True),
        (b"u:/other", False),
        pytest.param(index_name(URL, LONG), True, id="a digest may be anything"),
    ],
)
def test_a_pattern_finds_its_indexes(name, matches):
    assert matches_index(PathPattern.of("/items/*"), name) is matches


FIELDS = {
    b"accept-language": [b"de"],
    b"cookie": [b"session=secret"],
    b"x-api-key": [b"secret"],
    b"accept": [b"a/" + b"b" * 100],
}


def test_values_that_may_be_secrets_are_digests():
    language, cookie, key, accept = parts_of(
        (b"accept-language", b"cookie", b"x-api-key", b"accept"), FIELDS
    )
    assert language == secondary_key((b"accept-language",), FIELDS)
    assert all(part.startswith(b"#") for part in (cookie, key, accept))
    assert parts_of((b"cookie",), {}) == [b"-"]


def test_other_values_are_other_parts():
    other = {**FIELDS, b"cookie": [b"session=other"]}
    assert parts_of((b"cookie",), FIELDS) != parts_of((b"cookie",), other)
    assert parts_of((b"cookie",), FIELDS) == parts_of((b"cookie",), dict(FIELDS))


def test_what_is_too_long_to_be_a_key_is_none():
    assert parts_of((b"x",), {b"x": [b"a" * 10_000]}) is None
