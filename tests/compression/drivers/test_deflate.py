"""deflate as clients send it: with the wrapper of zlib and without."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.compression.codecs import CorruptBodyError
from perf_middleware.compression.drivers.deflate import DeflateCodec

LEVELS = st.integers(0, 9)


def compressed(body, level, wbits):
    return zlib.compress(body, level, wbits)


@pytest.mark.parametrize("wbits", [zlib.MAX_WBITS, 9, -zlib.MAX_WBITS, -9])
@given(body=st.binary(max_size=600) | st.just(b"a" * 70_000), level=LEVELS, one=st.booleans())
def test_with_the_wrapper_and_without(wbits, body, level, one):
    encoded = compressed(body, level, wbits)
    decoder = DeflateCodec().decoder()
    pieces = [bytes([byte]) for byte in encoded] if one and len(encoded) < 2000 else [encoded]
    assert b"".join(decoder.decode(piece, 100_000) for piece in pieces) == body
    assert decoder.is_complete


def test_the_checksum_of_the_wrapper_is_looked_at():
    encoded = bytearray(zlib.compress(b"a body"))
    encoded[-1] ^= 1
    with pytest.raises(CorruptBodyError):
        DeflateCodec().decoder().decode(bytes(encoded), 100)
