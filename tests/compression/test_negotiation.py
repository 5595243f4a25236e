"""Accept-Encoding against what is offered: who comes first, and that no bytes break it."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perf_middleware.compression.negotiation import (
    FIELD_BYTES_MAX,
    IDENTITY,
    acceptable_codings,
    field_value,
)

OFFERED = ("zstd", "br", "gzip")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(None, "identity", id="no field"),
        pytest.param(b"", "identity", id="an empty field asks for identity"),
        pytest.param(b" ,\t, ", "identity", id="nothing but separators"),
        pytest.param(b"gzip", "gzip identity", id="one coding"),
        pytest.param(b"gzip, deflate, br, zstd", "zstd br gzip identity", id="Chrome, Firefox"),
        pytest.param(b"gzip, deflate, br", "br gzip identity", id="Safari"),
        pytest.param(b"gzip,deflate", "gzip identity", id="no white space"),
        pytest.param(b"GZip , BR", "br gzip identity", id="codings in any case"),
        pytest.param(b"x-gzip", "gzip identity", id="x-gzip is gzip"),
        pytest.param(b"X-GZIP;q=0.5, br;q=0.4", "gzip br identity", id="x-gzip with a weight"),
        pytest.param(b"deflate, compress", "identity", id="nothing of it is offered"),
        pytest.param(b"zst, brotli, gzi", "identity", id="names are compared whole"),
        pytest.param(b"identity", "identity", id="identity alone"),
        pytest.param(b"br;q=0.5, gzip", "gzip br identity", id="the client's order first"),
        pytest.param(b"br;q=0.5, zstd;q=0.5", "zstd br identity", id="ours among equals"),
        pytest.param(b"br;q=0.001, zstd;q=0.002", "zstd br identity", id="the smallest steps"),
        pytest.param(b"br;q=0.9, zstd;q=0.899", "br zstd identity", id="three digits count"),
        pytest.param(b"gzip;q=0", "identity", id="refused"),
        pytest.param(b"gzip;q=0.000, br;q=0.", "identity", id="refused with decimals"),
        pytest.param(b"gzip;q=1.000, br;q=1.", "br gzip identity", id="one with decimals"),
        pytest.param(b"gzip ; q=0.5\t;", "identity", id="a semicolon too many"),
        pytest.param(b"gzip\t;\tq=0.5, br;Q=0.4", "gzip br identity", id="white space, capital Q"),
        pytest.param(b"*", "zstd br gzip identity", id="anything"),
        pytest.param(b"*;q=0", "identity", id="nothing"),
        pytest.param(b"gzip;q=0, *", "zstd br identity", id="anything but gzip"),
        pytest.param(b"gzip, *;q=0.1", "gzip zstd br identity", id="the rest by the star"),
        pytest.param(b"gzip, *;q=0", "gzip identity", id="gzip and nothing else"),
        pytest.param(b"identity;q=0, gzip", "gzip identity", id="identity refused, gzip is there"),
        pytest.param(b"identity;q=0", "identity", id="all refused: never 406"),
        pytest.param(b"identity;q=0, deflate", "identity", id="nothing left: never 406"),
        pytest.param(b"identity, gzip;q=0.5", "identity", id="identity is preferred"),
        pytest.param(b"identity;q=0.5, gzip;q=0.4, br", "br identity", id="gzip below identity"),
        pytest.param(b"identity, gzip", "gzip identity", id="as good as identity"),
        pytest.param(b"*;q=0.5, gzip;q=0.2", "zstd br identity", id="the star is identity too"),
        pytest.param(b"gzip, gzip;q=0", "identity", id="named twice: refused stays refused"),
        pytest.param(b"gzip;q=0, x-gzip", "identity", id="named twice by another name"),
        pytest.param(b"*, *;q=0", "identity", id="two stars"),
        pytest.param(b"gzip;q=2, br", "br identity", id="a weight above one"),
        pytest.param(b"gzip;q=1.001, br", "br identity", id="a little above one"),
        pytest.param(b"gzip;q=-1, br", "br identity", id="a negative weight"),
        pytest.param(b"gzip;q=0.1234, br", "br identity", id="four digits"),
        pytest.param(b"gzip;q=.5, br", "br identity", id="no digit before the point"),
        pytest.param(b"gzip;q=, br", "br identity", id="no weight"),
        pytest.param(b"gzip;q = 1, br", "br identity", id="space around the equals sign"),
        pytest.param(b'gzip;q="1", br', "br identity", id="a quoted weight"),
        pytest.param(b"gzip;level=1, br", "br identity", id="a parameter that there is not"),
        pytest.param(b"gz ip, br", "br identity", id="a space in a coding"),
        pytest.param(b"gzip;q=0.\xd9\xa1, br", "br identity", id="digits of another script"),
        pytest.param(b"gzip\n, br", "br identity", id="a line feed"),
        pytest.param(b"gzip;q=0.5;q=1, br", "br identity", id="two weights"),
        pytest.param(b",gzip,,", "gzip identity", id="empty elements"),
    ],
)  # fmt: skip
def test_the_codings_that_may_answer_best_first(value, expected):
    assert acceptable_codings(value, OFFERED) == tuple(expected.split())


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([], None, id="no line"),
        pytest.param([b"gzip"], b"gzip", id="one line"),
        pytest.param([b"gzip;q=0.5", b"br"], b"gzip;q=0.5,br", id="two lines"),
        pytest.param([b"", b""], b",", id="empty lines"),
    ],
)
def test_several_lines_are_one_list(lines, expected):
    assert field_value(lines) == expected


def test_a_field_that_is_too_long_is_none():
    at_most = b"gzip".ljust(FIELD_BYTES_MAX)
    assert acceptable_codings(at_most, OFFERED) == ("gzip", IDENTITY)
    assert acceptable_codings(at_most + b" ", OFFERED) == (IDENTITY,)


WORDS = st.sampled_from(
    [b"gzip", b"x-gzip", b"br", b"zstd", b"identity", b"*", b"deflate", b",", b";", b"q=", b"0",
     b"1", b".", b"5", b" ", b"\t", b"\xff", b'"']
)  # fmt: skip
FIELDS = st.lists(WORDS, max_size=20).map(b"".join) | st.binary(max_size=40)
OFFERS = st.permutations(OFFERED).flatmap(
    lambda order: st.integers(0, 3).map(lambda count: tuple(order[:count]))
)


@given(FIELDS, OFFERS)
@example(b"identity;q=0,*;q=0", ())
def test_any_bytes_end_in_identity_and_name_only_what_is_offered(value, offered):
    codings = acceptable_codings(value, offered)
    assert codings[-1] == IDENTITY
    assert set(codings[:-1]) <= set(offered)
    assert len(set(codings)) == len(codings)


@given(st.lists(FIELDS, min_size=1, max_size=4))
def test_the_order_of_the_lines_is_no_matter(lines):
    assert acceptable_codings(field_value(lines), OFFERED) == acceptable_codings(
        field_value(lines[::-1]), OFFERED
    )


@given(st.dictionaries(st.sampled_from([*OFFERED, IDENTITY, "*"]), st.integers(0, 1000)))
def test_nothing_goes_before_what_the_client_likes_better(weights):
    value = ", ".join(f"{name};q={weight / 1000:.3f}" for name, weight in weights.items())
    *codings, _ = acceptable_codings(value.encode(), OFFERED)
    others = weights.get("*", 0)
    given_weights = [weights.get(name, others) for name in codings]
    assert all(given_weights)
    assert given_weights == sorted(given_weights, reverse=True)
    left_out = set(OFFERED) - set(codings)
    assert all(
        (weight := weights.get(name, others)) == 0 or weight < weights.get(IDENTITY, others)
        for name in left_out
    )
