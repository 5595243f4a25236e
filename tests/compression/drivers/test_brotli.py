"""br: windows of any size up to 8 MB; one of 16 MB is more than a body is worth."""

import pytest

from perf_middleware.compression.codecs import CorruptBodyError
from perf_middleware.compression.drivers.brotli import BrotliCodec

CODEC = BrotliCodec()


@pytest.mark.parametrize("window_log", range(10, 24))
def test_a_window_of_up_to_8_mb_is_decoded(window_log):
    encoded = CODEC._library.compress(b"text " * 100, lgwin=window_log)
    decoder = CODEC.decoder()
    assert decoder.decode(encoded, 1_000) == b"text " * 100
    assert decoder.is_complete


def test_a_window_of_16_mb_is_refused():
    engine = CODEC._library.Compressor(lgwin=24)  # of a whole body the library makes it smaller
    encoded = engine.process(b"text " * 100) + engine.finish()
    with pytest.raises(CorruptBodyError, match="larger than 8 MB"):
        CODEC.decoder().decode(encoded, 1_000)
