"""Coded bodies with random lengths: every decoder still reads the same."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.compression.length_hiding import PADDING_BYTES_MAX, HidingEncoder
from tests.compression.stage import BODY, CODECS, CODINGS, decode_some, decoded

PADDINGS = st.integers(1, PADDING_BYTES_MAX)


def hiding(coding, padding_bytes, **how):
    return HidingEncoder(CODECS[coding].encoder(level=1, **how), coding, padding_bytes)


def whole(coding, padding_bytes, body):
    encoder = hiding(coding, padding_bytes)
    return encoder.encode(body) + encoder.finish()


@pytest.mark.parametrize("coding", CODINGS)
@given(pieces=st.lists(st.binary(max_size=200), max_size=5), padding_bytes=PADDINGS)
def test_a_decoder_reads_the_same_after_each_flush(coding, pieces, padding_bytes):
    encoder, decoder = hiding(coding, padding_bytes, small_window=True), CODECS[coding].decoder()
    for piece in pieces:
        seen = decode_some(decoder, encoder.encode(piece) + encoder.flush())
        assert seen == piece
    assert decode_some(decoder, encoder.finish()) == b""
    assert decoder.is_complete


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("body", [b"", b"x", BODY], ids=["empty", "a byte", "long"])
def test_each_byte_of_padding_makes_it_one_longer(coding, body):
    lengths = [len(whole(coding, count, body)) for count in range(1, PADDING_BYTES_MAX + 1)]
    assert lengths == list(range(lengths[0], lengths[0] + PADDING_BYTES_MAX))
    assert decoded(coding, whole(coding, 7, body)) == body


def test_the_name_stands_in_the_header_of_gzip():
    """zlib itself reads it: RFC 1952 §2.3.1."""
    assert zlib.decompress(whole("gzip", 100, BODY), 31) == BODY
    assert whole("gzip", 100, BODY)[3] & 0x08


@pytest.mark.parametrize("count", [0, PADDING_BYTES_MAX + 1])
def test_a_padding_that_cannot_be_told_is_refused(count):
    with pytest.raises(ValueError, match="padding is 1 to"):
        hiding("br", count)
