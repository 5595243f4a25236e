"""Bodies in content codings, as clients send them, and as hostile clients do."""

import struct
import zlib
from functools import cache

from perf_middleware.compression.drivers.available import (
    available_codecs,
    available_decoding_codecs,
)

OFFERED = {codec.name: codec for codec in available_decoding_codecs()}
ENCODING = {codec.name: codec for codec in available_codecs()}
MB = 1 << 20
GB = 1 << 30


def coded(body, *names):
    """`body` in these codings, in the order of Content-Encoding: the first is applied first."""
    for name in names:
        if name == "deflate":
            body = zlib.compress(body)
        else:
            body = ENCODING["gzip" if name == "x-gzip" else name].encode(body, level=5)
    return body


@cache
def repeated(name, size):
    """`size` zeros, packed a thousand times and more, without ever holding them."""
    if name in {"deflate", "gzip"}:
        return deflated(name, size)
    piece = bytes(MB)
    encoder = ENCODING[name].encoder(level={"zstd": 3, "br": 5}[name])
    return b"".join([*(encoder.encode(piece) for _ in range(size // MB)), encoder.finish()])


def deflated(name, size):
    """So many zeros: one block, again and again (RFC 1950, RFC 1951, RFC 1952)."""
    piece = bytes(min(size, MB))
    count = size // len(piece)
    engine = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    block = engine.compress(piece) + engine.flush(zlib.Z_FULL_FLUSH)  # stands alone, in whole bytes
    blocks = block * count + engine.flush()
    if name == "deflate":
        return b"\x78\xda" + blocks + ((size % 65_521) << 16 | 1).to_bytes(4, "big")  # Adler-32
    crc = 0
    for _ in range(count):
        crc = zlib.crc32(piece, crc)
    return b"\x1f\x8b\x08\0\0\0\0\0\2\xff" + blocks + struct.pack("<II", crc, size)


def zstd_frame(descriptor, rest):
    """A frame by hand (RFC 8878 §3.1.1.1)."""
    return b"\x28\xb5\x2f\xfd" + bytes([descriptor]) + rest


RLE_BLOCK = (((128 << 10) << 3) | 0b010).to_bytes(3, "little") + b"x"  # 128 kB in four bytes

WINDOW_OF_8_MB = bytes([13 << 3])


def zstd_in_zstd():
    """Both fill their windows: the inner one begins with 9 MB that are to be skipped."""
    skipped = b"\x50\x2a\x4d\x18" + (9 * MB).to_bytes(4, "little") + bytes(9 * MB)
    inner = skipped + zstd_frame(0, WINDOW_OF_8_MB + RLE_BLOCK * 10_000)
    library = ENCODING["zstd"]._library
    parameter = library.CompressionParameter
    options = {parameter.window_log: 23, parameter.content_size_flag: 0}
    return library.compress(inner, options=options)


@cache
def br_zeros(size, *, window_log):
    encoder = ENCODING["br"]._library.Compressor(quality=5, lgwin=window_log)
    return b"".join([*(encoder.process(bytes(MB)) for _ in range(size // MB)), encoder.finish()])


# Content-Encoding, and what makes the body.
BOMBS = {
    "gzip, a gigabyte of zeros": ("gzip", lambda: repeated("gzip", GB)),
    "deflate, 256 MB of zeros": ("deflate", lambda: repeated("deflate", 256 * MB)),
    "br, a gigabyte of zeros": ("br", lambda: repeated("br", GB)),
    "br, a window of 8 MB": ("br", lambda: br_zeros(256 * MB, window_log=23)),
    "br, a window of 16 MB": ("br", lambda: br_zeros(256 * MB, window_log=24)),
    "zstd, a gigabyte of zeros": ("zstd", lambda: repeated("zstd", GB)),
    "zstd, 128 kB in every four bytes": (
        "zstd", lambda: zstd_frame(0, WINDOW_OF_8_MB + RLE_BLOCK * 10_000),
    ),
    "gzip in gzip": ("gzip, gzip", lambda: coded(repeated("gzip", GB), "gzip")),
    "br in zstd": ("br, zstd", lambda: coded(repeated("br", GB), "zstd")),
    "zstd in br": ("zstd, br", lambda: coded(repeated("zstd", GB), "br")),
    "zstd in zstd, two windows of 8 MB": ("zstd, zstd", zstd_in_zstd),
    "zstd, a window of 2 GB": (
        "zstd", lambda: zstd_frame(0, bytes([21 << 3]) + RLE_BLOCK * 10_000),
    ),
    "zstd, one segment of an exabyte": (
        "zstd", lambda: zstd_frame(0xE0, (1 << 60).to_bytes(8, "little") + RLE_BLOCK * 10_000),
    ),
    "zstd, 100,000 empty frames": ("zstd", lambda: coded(b"", "zstd") * 100_000),
    "gzip, 50,000 empty members": ("gzip", lambda: coded(b"", "gzip") * 50_000),
    "gzip in gzip, empty members": (
        "gzip, gzip", lambda: coded(coded(b"", "gzip") * 200_000, "gzip"),
    ),
    "gzip in br, empty members": ("gzip, br", lambda: coded(coded(b"", "gzip") * 200_000, "br")),
}  # fmt: skip
