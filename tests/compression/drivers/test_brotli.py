"""br: windows, as far as a server has room for them."""

import brotli
import pytest

from perf_middleware.compression.codecs import CorruptBodyError
from perf_middleware.compression.drivers.brotli import BrotliCodec

CODEC = BrotliCodec()


@pytest.mark.parametrize("window_log", range(10, 24))
@pytest.mark.parametrize("quality", [1, 5, 10])
def test_every_window_up_to_8_mb_is_decoded(window_log, quality):
    body = b"a body " * 100
    encoded = brotli.compress(body, quality=quality, lgwin=window_log)
    decoder = CODEC.decoder()
    assert decoder.decode(encoded, 1000) == body
    assert decoder.is_complete


def test_a_window_of_16_mb_is_refused_at_its_first_byte():
    encoded = brotli.compress(b"a body", quality=5, lgwin=24)
    with pytest.raises(CorruptBodyError, match="16 MB"):
        CODEC.decoder().decode(encoded[:1], 1000)


@pytest.mark.parametrize("level", range(12))
def test_what_is_encoded_here_is_decoded_here(level):
    large = b"0123456789abcdef" * 10_000
    for encoded in (
        CODEC.encode(large, level=level),
        (encoder := CODEC.encoder(level=level)).encode(large) + encoder.finish(),
    ):
        assert CODEC.decoder().decode(encoded, len(large)) == large


def test_the_small_window_is_64_kb():
    encoder = CODEC.encoder(level=5, small_window=True)
    encoded = encoder.encode(b"a body") + encoder.finish()
    assert encoded[0] & 1 == 0  # RFC 7932 §9.1: a first bit of 0 is a window of 16 bits
