"""The variants of one URL and their keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.caching.selection import VARY_FIELDS_MAX, VARY_VALUE_BYTES_MAX
from perf_middleware.caching.variants import VARIANT_BYTES, Variants, names_in, united

MANY = tuple(b"f%02d" % number for number in range(VARY_FIELDS_MAX))


@pytest.mark.parametrize(
    ("names", "more", "both"),
    [
        pytest.param((), (), (), id="none"),
        pytest.param((), (b"a",), (b"a",), id="the first"),
        pytest.param((b"a",), (), (b"a",), id="none to add"),
        pytest.param((b"a",), (b"a",), (b"a",), id="the same"),
        pytest.param((b"b",), (b"a",), (b"a", b"b"), id="another one, sorted"),
        pytest.param((b"a", b"c"), (b"b", b"c"), (b"a", b"b", b"c"), id="some of both"),
        pytest.param(MANY, (b"f01",), MANY, id="as many as there may be"),
        pytest.param(MANY, (b"z",), None, id="one more than there may be"),
    ],
)
def test_names_unite_until_they_are_too_many(names, more, both):
    assert united(names, more) == both
    assert united(more, names) == both


def test_a_key_begins_with_the_url_and_tells_variants_apart():
    variants = Variants(b"http://h/a", (b"accept-language",))
    german = variants.key_for({b"accept-language": [b"de"]})
    assert german.startswith(b"http://h/a\r")
    assert german == variants.key_for({b"accept-language": [b" de "], b"x": [b"1"]})
    keys = {german, variants.key_for({b"accept-language": [b"en"]}), variants.key_for({})}
    assert len(keys) == 3
    assert b"http://h/a" not in keys


def test_a_request_that_no_key_can_hold_matches_none():
    variants = Variants(b"http://h/a", (b"x",))
    assert variants.key_for({b"x": [b"a" * (VARY_VALUE_BYTES_MAX + 1)]}) is None


@pytest.mark.parametrize("names", [(b"a",), (b"a", b"b"), MANY])
@pytest.mark.parametrize("value", [b"", b"1", b"\r,\r", b"a,b"])
def test_a_key_tells_by_which_names_it_was_made(names, value):
    key = Variants(b"http://h/a", names).key_for({b"a": [value], b"f00": [value]})
    assert names_in(key, b"http://h/a") == names


def test_the_key_of_a_url_tells_of_no_names():
    assert names_in(b"http://h/a", b"http://h/a") == ()


def test_keys_by_other_names_are_others():
    fields = {b"a": [b"1"], b"b": [b"1"]}
    keys = {Variants(b"u", names).key_for(fields) for names in ((b"a",), (b"b",), (b"a", b"b"))}
    assert len(keys) == 3


def test_each_variant_adds_to_its_size():
    variants = Variants(b"http://h/a", (b"x",))
    empty_bytes = variants.size_bytes
    variants.keys |= {b"1", b"2"}
    assert variants.size_bytes == empty_bytes + 2 * VARIANT_BYTES
    assert Variants(b"http://h/a" + b"b" * 100, (b"x",)).size_bytes == empty_bytes + 100


name_sets = st.lists(st.sampled_from((*MANY, b"y", b"z")), unique=True).map(sorted).map(tuple)


@given(name_sets, name_sets)
def test_what_is_united_has_every_name_once_and_in_order(names, more):
    both = united(names, more)
    if both is None:
        assert len({*names, *more}) > VARY_FIELDS_MAX
    else:
        assert both == tuple(sorted({*names, *more}))
