"""One contract for every codec: what goes in comes out, however it is cut; nothing else breaks."""

import gzip
import random
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.compression.codecs import CorruptBodyError
from perf_middleware.compression.drivers.available import (
    available_codecs,
    available_decoding_codecs,
)
from perf_middleware.compression.drivers.gzip import GzipCodec
from perf_middleware.compression.drivers.slices import PARTS_AT_ONCE, PARTS_MAX, SLICE_BYTES


class WithoutLibraries(GzipCodec):
    """gzip by the standard library alone."""

    def __init__(self):
        self._ng = None
        self._isal = None


class WithNgOnly(GzipCodec):
    def __init__(self):
        super().__init__()
        self._isal = None


CODECS = {codec.name: codec for codec in available_codecs()}
ENCODING = {**CODECS, "gzip by zlib": WithoutLibraries(), "gzip by zlib-ng": WithNgOnly()}
LEVELS = {"zstd": range(1, 20), "br": range(12), "gzip": range(1, 10)}
DECODING = {codec.name: codec for codec in available_decoding_codecs()}

every_encoding = pytest.mark.parametrize("codec", ENCODING.values(), ids=ENCODING)
every_decoding = pytest.mark.parametrize("codec", DECODING.values(), ids=DECODING)

WORDS = [b"the ", b"quick ", b'{"id": ', b"fox", b"\x00" * 300, b"\n\n", b"aaaaaaaa", b"\xff\xfe"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=60).map(b"".join)
BODIES = TEXTS | st.binary(max_size=500) | st.integers(0, 3).map(lambda n: b"0123456789" * 10**n)


NOISE = random.Random(1).randbytes(3 * SLICE_BYTES)


def may_repeat(codec):
    return codec.name in {"gzip", "zstd"}


def decoded(decoder, pieces, bytes_max=1 << 20):
    """Everything, fed as the port says."""
    out = []
    for piece in pieces:
        assert decoder.is_hungry
        out.append(decoder.decode(piece, bytes_max))
        while not decoder.is_hungry:
            out.append(decoder.decode(b"", bytes_max))
    assert all(len(fresh) <= bytes_max for fresh in out)
    return b"".join(out)


def whole(codec, encoded):
    """The body behind `encoded`, which must be all of it."""
    decoder = codec.decoder()
    body = decoded(decoder, [encoded])
    assert decoder.is_complete
    return body


def cut(data, body):
    """`body` in pieces."""
    points = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    return [body[i:j] for i, j in zip([0, *points], [*points, len(body)], strict=True)]


def encoded_as(name, body):
    if name == "deflate":
        return zlib.compress(body)
    return CODECS[name].encode(body, level=5)


def test_all_libraries_of_the_extra_are_here():
    assert list(CODECS) == ["zstd", "br", "gzip"]
    assert list(DECODING) == ["zstd", "br", "gzip", "deflate"]
    assert CODECS["gzip"]._ng is not None
    assert CODECS["gzip"]._isal is not None


@every_encoding
@given(body=BODIES, data=st.data())
def test_a_whole_body_comes_back_at_every_level(codec, body, data):
    level = data.draw(st.sampled_from(LEVELS[codec.name]))
    assert whole(codec, codec.encode(body, level=level)) == body


@every_encoding
@pytest.mark.parametrize("small_window", [False, True])
@given(body=BODIES, data=st.data())
def test_a_body_in_pieces_comes_back_however_it_is_cut_and_flushed(codec, small_window, body, data):
    level = data.draw(st.sampled_from(LEVELS[codec.name]))
    encoder = codec.encoder(level=level, small_window=small_window)
    decoder = codec.decoder()
    back = b""
    given_so_far = b""
    for piece in cut(data, body):
        given_so_far += piece
        ready = encoder.encode(piece)
        flushed = data.draw(st.booleans())
        if flushed:
            ready += encoder.flush()
        back += decoded(decoder, [ready])
        if flushed:
            assert back == given_so_far
        assert not decoder.is_complete or not ready
    back += decoded(decoder, [encoder.finish()])
    assert back == body
    assert decoder.is_complete


@every_decoding
@given(body=BODIES, data=st.data(), bytes_max=st.integers(1, 300))
def test_a_coded_body_may_come_in_any_pieces_and_go_out_in_any_steps(codec, body, data, bytes_max):
    pieces = cut(data, encoded_as(codec.name, body))
    decoder = codec.decoder()
    assert decoded(decoder, pieces, bytes_max) == body
    assert decoder.is_complete


@every_decoding
@given(body=BODIES, data=st.data(), bytes_max=st.integers(1, 300))
def test_small_steps_bring_out_of_a_piece_all_that_large_ones_do(codec, body, data, bytes_max):
    encoded = encoded_as(codec.name, body)
    begun = encoded[: data.draw(st.integers(0, len(encoded)))]
    assert decoded(codec.decoder(), [begun], bytes_max) == decoded(codec.decoder(), [begun])


@every_decoding
def test_a_match_that_was_cut_short_comes_out_before_more_is_asked_for(codec):
    encoded = encoded_as(codec.name, b"a" * 5_000)
    for end in range(len(encoded)):
        begun = encoded[:end]
        assert decoded(codec.decoder(), [begun], 7) == decoded(codec.decoder(), [begun])


PIECES_EARLY = st.sampled_from([1, 40, 5_000, 30_000])


@every_decoding
@given(
    bodies=st.lists(BODIES | st.sampled_from([NOISE, NOISE[:5_000]]), min_size=1, max_size=4),
    data=st.data(),
)
def test_pieces_may_come_before_the_last_one_is_used_up(codec, bodies, data):
    if not may_repeat(codec):
        bodies = bodies[:1]
    decoder = codec.decoder()
    pieces = cut(data, b"".join(encoded_as(codec.name, body) for body in bodies))
    out = [decoder.decode(piece, data.draw(PIECES_EARLY)) for piece in pieces]
    while not decoder.is_hungry:
        out.append(decoder.decode(b"", 1000))
    assert b"".join(out) == b"".join(bodies)
    assert decoder.is_complete


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_a_member_that_waits_in_an_early_slice_is_not_lost(name):
    long, short = encoded_as(name, b"a" * 50_000), encoded_as(name, b"next")
    encoded = encoded_as(name, NOISE) + long + short
    decoder = DECODING[name].decoder()
    out = [decoder.decode(encoded, len(NOISE) + 10), decoder.decode(short, 10)]
    while not decoder.is_hungry:
        out.append(decoder.decode(b"", 1000))
    assert b"".join(out) == NOISE + b"a" * 50_000 + b"nextnext"
    assert decoder.is_complete


@every_decoding
@given(body=BODIES, data=st.data())
def test_a_body_that_ends_too_early_is_not_complete(codec, body, data):
    encoded = encoded_as(codec.name, body)
    decoder = codec.decoder()
    kept = encoded[: data.draw(st.integers(0, len(encoded) - 1))]
    assert body.startswith(decoded(decoder, [kept]))
    assert not decoder.is_complete


@every_decoding
@given(garbage=st.binary(max_size=200), data=st.data())
def test_any_bytes_are_a_body_or_corrupt(codec, garbage, data):
    decoder = codec.decoder()
    with suppress(CorruptBodyError):
        decoded(decoder, cut(data, garbage), 10_000)


@every_decoding
@given(body=BODIES, data=st.data())
def test_a_damaged_body_is_a_body_or_corrupt(codec, body, data):
    encoded = bytearray(encoded_as(codec.name, body))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    decoder = codec.decoder()
    with suppress(CorruptBodyError):
        decoded(decoder, cut(data, bytes(encoded)), 10_000)


@every_decoding
@pytest.mark.parametrize("apart", [False, True], ids=["in the same piece", "in the next piece"])
def test_what_follows_the_end_is_corrupt(codec, apart):
    encoded = encoded_as(codec.name, b"a body")
    pieces = [encoded, b"garbage!"] if apart else [encoded + b"garbage!"]
    with pytest.raises(CorruptBodyError):
        decoded(codec.decoder(), pieces)


@pytest.mark.parametrize("name", ["br", "deflate"])
@pytest.mark.parametrize("apart", [False, True], ids=["in the same piece", "in the next piece"])
def test_a_second_stream_is_corrupt_where_there_is_only_one(name, apart):
    stream = encoded_as(name, b"a body")
    pieces = [stream, stream] if apart else [stream + stream]
    with pytest.raises(CorruptBodyError):
        decoded(DECODING[name].decoder(), pieces)


@every_decoding
@pytest.mark.parametrize("bytes_max", [1, 1000, 65_536])
def test_a_bomb_goes_off_a_step_at_a_time(codec, bytes_max):
    bomb = encoded_as(codec.name, b"\x00" * 10_000_000)
    assert len(bomb) < 20_000
    decoder = codec.decoder()
    assert decoder.decode(bomb, bytes_max) == b"\x00" * bytes_max
    assert not decoder.is_hungry
    assert decoder.decode(b"", bytes_max) == b"\x00" * bytes_max
    assert not decoder.is_complete


@every_decoding
def test_a_bomb_takes_no_more_memory_than_a_step(codec):
    bomb = encoded_as(codec.name, b"\x00" * 10_000_000)
    decoder = codec.decoder()
    tracemalloc.start()
    try:
        assert len(decoder.decode(bomb, 1_000)) == 1_000
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


@every_decoding
def test_no_room_gives_nothing_and_loses_nothing(codec):
    decoder = codec.decoder()
    assert decoder.decode(encoded_as(codec.name, b"a body"), 0) == b""
    assert not decoder.is_hungry
    assert decoder.decode(b"", 100) == b"a body"
    assert decoder.is_complete


@pytest.mark.parametrize("name", ["gzip", "zstd"])
@given(bodies=st.lists(BODIES, min_size=1, max_size=4), data=st.data())
def test_several_members_or_frames_are_one_body(name, bodies, data):
    encoded = b"".join(encoded_as(name, body) for body in bodies)
    decoder = DECODING[name].decoder()
    assert decoded(decoder, cut(data, encoded), data.draw(st.integers(1, 2000))) == b"".join(bodies)
    assert decoder.is_complete


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_between_two_members_the_body_may_end(name):
    member = encoded_as(name, b"one")
    decoder = DECODING[name].decoder()
    assert decoded(decoder, [member]) == b"one"
    assert decoder.is_complete
    assert decoded(decoder, [member[:3]]) == b""
    assert not decoder.is_complete
    assert decoded(decoder, [member[3:]]) == b"one"
    assert decoder.is_complete


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_members_and_frames_are_counted(name):
    most = encoded_as(name, b"") * PARTS_MAX
    assert len(most) > SLICE_BYTES
    decoder = DECODING[name].decoder()
    assert decoded(decoder, [most]) == b""
    assert decoder.is_complete
    with pytest.raises(CorruptBodyError):
        decoder.decode(encoded_as(name, b"one more"), 100)


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_a_call_does_no_more_than_so_many_members(name):
    decoder = DECODING[name].decoder()
    assert decoder.decode(encoded_as(name, b"x") * 1_000, 10_000) == b"x" * PARTS_AT_ONCE
    assert not decoder.is_hungry


@every_encoding
def test_encoders_of_one_thread_do_not_disturb_each_other(codec):
    level = LEVELS[codec.name][1]
    first, second = codec.encoder(level=level), codec.encoder(level=level)
    begun, other = first.encode(b"first " * 99), second.encode(b"second " * 99)
    assert whole(codec, codec.encode(b"whole", level=level)) == b"whole"
    assert whole(codec, begun + first.finish()) == b"first " * 99
    assert whole(codec, other + second.finish()) == b"second " * 99


@every_encoding
def test_a_body_that_cannot_be_encoded_leaves_nothing_behind(codec):
    with pytest.raises(TypeError):
        codec.encode("no bytes", level=3)
    assert whole(codec, codec.encode(b"bytes", level=3)) == b"bytes"


@pytest.mark.parametrize("level", LEVELS["gzip"])
def test_gzip_is_what_everybody_else_reads(level):
    body = b"a body " * 1000
    for codec in (CODECS["gzip"], WithoutLibraries(), WithNgOnly()):
        assert gzip.decompress(codec.encode(body, level=level)) == body


@every_encoding
def test_the_highest_level_packs_better_than_the_lowest(codec):
    body = b"".join(b'{"id": %d, "name": "%x"},' % (i, i * i) for i in range(2000))
    levels = LEVELS[codec.name]
    assert len(codec.encode(body, level=levels[-1])) < len(codec.encode(body, level=levels[0]))
