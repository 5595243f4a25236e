"""The chain of decoders: any codings, any pieces, the same body; and what it refuses."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware.compression.codecs import CorruptBodyError
from perf_middleware.compression.decoding import (
    CODINGS_MAX,
    PIECE_BYTES,
    RATIO_FLOOR_BYTES,
    DecodedTooLargeError,
    DecodingChain,
    DecodingLimits,
    UnknownCodingError,
    codings_of,
)
from tests.compression.coded import BOMBS, MB, OFFERED, coded, repeated

WIDE = DecodingLimits(decoded_bytes_max=1 << 40, ratio_max=1 << 40)
NAMES = sorted(OFFERED)
BODIES = st.binary(max_size=3_000) | st.builds(
    lambda piece, times: piece * times, st.binary(max_size=60), st.integers(0, 3_000)
)
CODINGS = st.lists(st.sampled_from([*NAMES, "x-gzip"]), min_size=1, max_size=CODINGS_MAX)
REFUSED = (CorruptBodyError, DecodedTooLargeError)


def chain_of(*names, limits=WIDE):
    codecs = codings_of([", ".join(names).encode()], OFFERED)
    return DecodingChain([codec.decoder() for codec in codecs], limits)


def steps(chain, pieces):
    """What each step of the chain gives, to the end of the body."""
    for piece in pieces:
        assert chain.is_hungry
        chain.give(piece)
        while not chain.is_hungry:
            yield chain.decode()
    chain.end()


def cut(body, points):
    points = sorted(point % (len(body) + 1) for point in points)
    return [body[a:b] for a, b in zip([0, *points], [*points, len(body)], strict=True)]


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        pytest.param([b"gzip"], ["gzip"], id="one"),
        pytest.param([b"gzip, br"], ["br", "gzip"], id="the last one applied is undone first"),
        pytest.param([b"gzip", b"br"], ["br", "gzip"], id="two lines are one list"),
        pytest.param([b"X-GZip"], ["gzip"], id="x-gzip, in any case"),
        pytest.param([b" \tzstd\t"], ["zstd"], id="white space"),
        pytest.param([b"identity"], [], id="identity"),
        pytest.param([b"identity, deflate ,identity"], ["deflate"], id="identity beside one"),
        pytest.param([b""], [], id="empty"),
        pytest.param([b",, gzip,"], ["gzip"], id="empty elements"),
        pytest.param([b"gzip, gzip"], ["gzip", "gzip"], id="twice"),
        pytest.param([b"br,identity,gzip"], ["gzip", "br"], id="identity is not counted"),
    ],
)
def test_codings_are_undone_in_reverse(lines, names):
    assert [codec.name for codec in codings_of(lines, OFFERED)] == names


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"compress", id="known to the RFC, not to us"),
        pytest.param(b"gzip;q=1", id="parameter"),
        pytest.param(b"gzip br", id="no comma"),
        pytest.param(b"*", id="star"),
        pytest.param(b"gzip, gzip, gzip", id="three"),
        pytest.param(b"g\xffip", id="no token"),
        pytest.param(b"gzip\x00", id="NUL"),
    ],
)
def test_a_coding_that_is_not_offered_is_unknown(line):
    with pytest.raises(UnknownCodingError):
        codings_of([line], OFFERED)


@given(st.lists(st.binary(max_size=40)))
def test_any_lines_give_codings_or_are_unknown(lines):
    with contextlib.suppress(UnknownCodingError):
        assert len(codings_of(lines, OFFERED)) <= CODINGS_MAX


@given(BODIES, CODINGS, st.lists(st.integers(0, 1 << 20), max_size=8))
def test_any_body_in_any_codings_and_pieces_comes_back(body, names, points):
    chain = chain_of(*names)
    encoded = coded(body, *names)
    given_steps = list(steps(chain, cut(encoded, points)))
    assert b"".join(given_steps) == body
    assert max(map(len, given_steps), default=0) <= PIECE_BYTES
    assert (chain.encoded_bytes, chain.decoded_bytes) == (len(encoded), len(body))


@given(BODIES, CODINGS, st.lists(st.integers(0, 1 << 20), max_size=8))
def test_pieces_may_come_before_the_last_one_is_used_up(body, names, points):
    chain = chain_of(*names)
    out = b""
    for piece in cut(coded(body, *names), points):
        chain.give(piece)
    while not chain.is_hungry:
        out += chain.decode()
    chain.end()
    assert out == body


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=6), st.sampled_from(["gzip", "zstd"]))
def test_several_members_are_one_body(bodies, name):
    encoded = b"".join(coded(body, name) for body in bodies)
    assert b"".join(steps(chain_of(name), [encoded])) == b"".join(bodies)


@pytest.mark.parametrize(
    "names", [["gzip"], ["br"], ["zstd"], ["deflate"], ["br", "gzip"]], ids=str
)
def test_a_large_body_comes_in_bounded_steps(names):
    body = b"".join(b"%d" % (number * number) for number in range(200_000))
    given_steps = list(steps(chain_of(*names), [coded(body, *names)]))
    assert b"".join(given_steps) == body
    assert max(map(len, given_steps)) <= PIECE_BYTES


@given(BODIES.filter(len), CODINGS, st.data())
def test_a_truncated_body_is_corrupt(body, names, data):
    encoded = coded(body, *names)
    kept = encoded[: data.draw(st.integers(1, len(encoded) - 1))]
    with pytest.raises(CorruptBodyError):
        list(steps(chain_of(*names), [kept]))


@given(BODIES, st.sampled_from(NAMES), st.binary(min_size=1, max_size=20))
def test_what_follows_the_end_is_corrupt_unless_it_is_another_member(body, name, more):
    whole = coded(body, name) + more
    try:
        assert b"".join(steps(chain_of(name), [whole])).startswith(body)
        assert name == "zstd"  # a frame to be skipped may be drawn
    except CorruptBodyError:
        pass


@given(st.binary(max_size=500), CODINGS)
def test_any_bytes_are_decoded_or_refused(body, names):
    with contextlib.suppress(*REFUSED):
        list(steps(chain_of(*names), [body]))


def test_no_body_at_all_has_nothing_to_decode():
    assert list(steps(chain_of("gzip", "br"), [])) == []
    assert b"".join(steps(chain_of("gzip"), [b"", b""])) == b""


@settings(max_examples=50)
@given(st.integers(0, 3_000), st.integers(1, 3_000), st.sampled_from(NAMES))
def test_a_body_may_have_exactly_the_bytes_that_it_may_have(size, most, name):
    chain = chain_of(name, limits=DecodingLimits(decoded_bytes_max=most, ratio_max=1 << 40))
    encoded = coded(b"x" * size, name)
    if size <= most:
        assert b"".join(steps(chain, [encoded])) == b"x" * size
    else:
        with pytest.raises(DecodedTooLargeError) as caught:
            list(steps(chain, [encoded]))
        assert caught.value.bound == "bytes"


@pytest.mark.parametrize("name", NAMES)
def test_a_ratio_is_judged_from_a_megabyte_on(name):
    limits = DecodingLimits(decoded_bytes_max=1 << 40, ratio_max=100)
    small = repeated(name, RATIO_FLOOR_BYTES)
    assert len(small) * 100 < RATIO_FLOOR_BYTES
    assert sum(map(len, steps(chain_of(name, limits=limits), [small]))) == RATIO_FLOOR_BYTES
    chain = chain_of(name, limits=limits)
    with pytest.raises(DecodedTooLargeError) as caught:
        list(steps(chain, [repeated(name, 8 * MB)]))
    assert caught.value.bound == "ratio"
    most = max(RATIO_FLOOR_BYTES, 100 * chain.encoded_bytes)
    assert most < chain.decoded_bytes <= most + PIECE_BYTES


def test_what_a_coding_makes_for_another_is_bounded_too():
    members = coded(b"", "gzip") * 9_000
    limits = DecodingLimits(decoded_bytes_max=len(members) - 1, ratio_max=1 << 40)
    with pytest.raises(DecodedTooLargeError):
        list(steps(chain_of("gzip", "br", limits=limits), [coded(members, "br")]))
    limits = DecodingLimits(decoded_bytes_max=len(members), ratio_max=1 << 40)
    assert (
        list(filter(None, steps(chain_of("gzip", "br", limits=limits), [coded(members, "br")])))
        == []
    )


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_gives_no_more_than_its_limits(bomb):
    names, build = BOMBS[bomb]
    limits = DecodingLimits(decoded_bytes_max=8 * MB, ratio_max=1_000_000)
    chain = chain_of(names, limits=limits)
    given_steps = steps(chain, [build()])
    sizes = []
    with pytest.raises(REFUSED):
        sizes.extend(map(len, given_steps))
    assert sum(sizes) <= limits.decoded_bytes_max


@pytest.mark.parametrize(
    "wrong", [{"decoded_bytes_max": 0, "ratio_max": 1}, {"decoded_bytes_max": 1, "ratio_max": 0}]
)
def test_limits_are_at_least_one(wrong):
    with pytest.raises(ValueError, match=">= 1"):
        DecodingLimits(**wrong)
