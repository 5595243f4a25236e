"""Entity tags and their lists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.caching.syntax.etags import (
    ELEMENTS_MAX,
    EntityTag,
    parse_etag,
    parse_etag_list,
    strong_match,
    weak_match,
)

STRONG = EntityTag(b'"1"')
WEAK = EntityTag(b'"1"', weak=True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(b'"1"', STRONG, id="strong"),
        pytest.param(b'W/"1"', WEAK, id="weak"),
        pytest.param(b' W/"1"\t', WEAK, id="white space around"),
        pytest.param(b'""', EntityTag(b'""'), id="empty"),
        pytest.param(b'"a,b;c=d"', EntityTag(b'"a,b;c=d"'), id="delimiters inside"),
        pytest.param(rb'"a\"', EntityTag(rb'"a\"'), id="a backslash escapes nothing"),
        pytest.param(b'"W/"', EntityTag(b'"W/"'), id="the mark of weakness inside"),
        pytest.param(b'"\xe9\x80\xff"', EntityTag(b'"\xe9\x80\xff"'), id="other than ASCII"),
        pytest.param(b"", None, id="nothing"),
        pytest.param(b"1", None, id="no quotes"),
        pytest.param(b'"1', None, id="left open"),
        pytest.param(b'1"', None, id="never opened"),
        pytest.param(b'w/"1"', None, id="the mark in lower case"),
        pytest.param(b'W"1"', None, id="the mark without its stroke"),
        pytest.param(b'W/ "1"', None, id="a space after the mark"),
        pytest.param(b"W/1", None, id="weak without quotes"),
        pytest.param(b"W/", None, id="the mark alone"),
        pytest.param(b'"a b"', None, id="a space inside"),
        pytest.param(b'"a"b"', None, id="a quote inside"),
        pytest.param(b'"a", "b"', None, id="two tags"),
        pytest.param(b'"a\x7f"', None, id="a control character"),
        pytest.param(b"*", None, id="a star"),
        pytest.param(b"'1'", None, id="single quotes"),
    ],
)
def test_a_tag_is_read_by_the_letter(value, expected):
    assert parse_etag(value) == expected


@pytest.mark.parametrize(
    ("a", "b", "strong", "weak"),
    [  # the table of RFC 9110 §8.8.3.2
        pytest.param(WEAK, WEAK, False, True, id="both weak"),
        pytest.param(WEAK, EntityTag(b'"2"', weak=True), False, False, id="both weak, others"),
        pytest.param(WEAK, STRONG, False, True, id="one weak"),
        pytest.param(STRONG, STRONG, True, True, id="both strong"),
        pytest.param(STRONG, EntityTag(b'"2"'), False, False, id="both strong, others"),
    ],
)
def test_tags_match_strongly_only_where_both_are_strong(a, b, strong, weak):
    assert strong_match(a, b) is strong_match(b, a) is strong
    assert weak_match(a, b) is weak_match(b, a) is weak


A, B, C = EntityTag(b'"a"'), EntityTag(b'"b"', weak=True), EntityTag(b'"c,c"')


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([b'"a"'], [A], id="one"),
        pytest.param([b'"a", W/"b","c,c"'], [A, B, C], id="three, one with a comma"),
        pytest.param([b'"a"', b'W/"b"  ,', b' "c,c"'], [A, B, C], id="three lines"),
        pytest.param([b' , ,"a",,\t, W/"b"'], [A, B], id="empty elements"),
        pytest.param([b'"a"\t , "c,c"\t'], [A, C], id="white space around"),
        pytest.param([b'a, "a"'], [A], id="junk before"),
        pytest.param([b'"a", b'], [A], id="junk after"),
        pytest.param([b'W/b, w/"b", "a"'], [A], id="what is nearly a tag"),
        pytest.param([b'"x y", "a"'], [A], id="a tag with a space"),
        pytest.param([b'"a" x, W/"b"'], [B], id="junk behind a tag spoils it"),
        pytest.param([b'x"a", W/"b"'], [B], id="and before it"),
        pytest.param([b'"a"W/"b"'], None, id="no comma between"),
        pytest.param([b'"a'], None, id="left open"),
        pytest.param([b'"a, "c,c"'], [EntityTag(b'"c,c"')], id="left open before another"),
        pytest.param([b'"a', b'"a"'], [A], id="left open at the end of a line"),
        pytest.param([b"*"], "*", id="a star"),
        pytest.param([b" *\t"], "*", id="a star in white space"),
        pytest.param([b"*,"], "*", id="a star and an empty element"),
        pytest.param([b'*, "a"'], [A], id="a star beside a tag does not count"),
        pytest.param([b'"a"', b"*"], [A], id="nor on another line"),
        pytest.param([b'"*"'], [EntityTag(b'"*"')], id="a star in quotes"),
        pytest.param([b"**, *a"], None, id="two stars"),
        pytest.param([b"x, y"], None, id="junk"),
        pytest.param([b""], None, id="empty"),
        pytest.param([], None, id="no line"),
    ],
)
def test_a_list_of_tags_keeps_what_is_valid(lines, expected):
    assert parse_etag_list(lines) == expected


TAGS = st.builds(
    EntityTag,
    st.text("!#,;\\W/*=ab\xff", max_size=6).map(lambda text: b'"' + text.encode("latin-1") + b'"'),
    st.booleans(),
)


@given(st.lists(TAGS, min_size=1, max_size=6), st.sampled_from([b",", b" , ", b",,", b",x,"]))
def test_what_was_joined_is_read_again_as_one_line_or_many(tags, separator):
    written = [b"W/" + tag.opaque if tag.weak else tag.opaque for tag in tags]
    assert [parse_etag(one) for one in written] == tags
    assert parse_etag_list([separator.join(written)]) == tags
    assert parse_etag_list(written) == tags


def test_a_list_is_read_up_to_its_bound():
    many = [b'"x"'] * (ELEMENTS_MAX - 1)
    tags = parse_etag_list([b",".join(many), b'"in"', b'"out"'])
    assert tags[-1] == EntityTag(b'"in"')
    assert len(tags) == ELEMENTS_MAX
