"""zstd: windows that every receiver has, frames that tell their size, compressors that are kept."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.compression.codecs import CorruptBodyError
from perf_middleware.compression.drivers.zstd import WINDOW_LOG_MAX, ZstdCodec

CODEC = ZstdCodec()
LIBRARY = CODEC._library
LARGE = b" ".join([b"%x" % (number * number) for number in range(1_500_000)])
SKIPPABLE = b"\x50\x2a\x4d\x18\x05\x00\x00\x00notes"


def window_log(frame):
    """The window that a decoder needs for it, as a power of two (RFC 8878 §3.1.1.1.2)."""
    descriptor = frame[4]
    if descriptor & 0x20:  # one segment: as much as the content
        size = LIBRARY.get_frame_info(frame).decompressed_size
        return (size - 1).bit_length()
    return 10 + (frame[5] >> 3) + bool(frame[5] & 7)


def whole(encoded):
    decoder = CODEC.decoder()
    out = [decoder.decode(encoded, 1 << 30)]
    assert decoder.is_hungry
    assert decoder.is_complete
    return b"".join(out)


@pytest.mark.parametrize("level", range(1, 20))
def test_no_level_needs_a_window_above_8_mb(level):
    assert len(LARGE) > 1 << WINDOW_LOG_MAX
    head = LARGE[: 1 << 20] if level > 3 else LARGE
    assert window_log(CODEC.encode(head, level=level)) <= WINDOW_LOG_MAX
    encoder = CODEC.encoder(level=level)
    assert window_log(encoder.encode(head) + encoder.finish()) <= WINDOW_LOG_MAX


def test_a_body_larger_than_the_window_is_no_single_segment():
    encoded = CODEC.encode(LARGE, level=1)
    assert window_log(encoded) <= WINDOW_LOG_MAX
    assert whole(encoded) == LARGE


@given(st.binary(max_size=2000), st.sampled_from([1, 3, 6, 7, 19]))
def test_the_frame_of_a_whole_body_tells_its_size(body, level):
    encoded = CODEC.encode(body, level=level)
    assert LIBRARY.get_frame_info(encoded).decompressed_size == len(body)
    assert LIBRARY.get_frame_size(encoded) == len(encoded)


def test_a_small_window_is_32_kb():
    encoder = CODEC.encoder(level=3, small_window=True)
    assert window_log(encoder.encode(b"x" * 100_000) + encoder.finish()) == 15


@given(st.lists(st.tuples(st.binary(max_size=300), st.integers(1, 8)), max_size=12))
def test_a_kept_compressor_carries_nothing_from_one_body_to_the_next(bodies):
    codec = ZstdCodec()
    for body, level in bodies:
        assert codec.encode(body, level=level) == ZstdCodec().encode(body, level=level)


def kept_levels(codec):
    return list(codec._kept.by_level)


def test_few_compressors_are_kept_and_the_latest_levels():
    codec = ZstdCodec()
    for level in (1, 2, 3, 3, 4, 9, 19):
        codec.encode(b"a body", level=level)
    assert kept_levels(codec) == [2, 3, 4]
    before = codec._kept.by_level[4]
    codec.encode(b"a" * 300_000, level=4)
    assert codec._kept.by_level[4] is before


def test_a_large_body_is_not_encoded_by_what_is_kept():
    codec = ZstdCodec()
    codec.encode(b"a" * 300_000, level=3)
    assert not hasattr(codec._kept, "by_level")


def test_each_thread_keeps_its_own():
    codec = ZstdCodec()
    seen = []

    def encode():
        codec.encode(b"a body", level=3)
        seen.append(codec._kept.by_level[3])

    threads = [threading.Thread(target=encode) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, seen))) == 2
    assert not hasattr(codec._kept, "by_level")


def test_a_window_above_the_maximum_is_refused_before_it_is_there():
    parameter = LIBRARY.CompressionParameter
    encoder = LIBRARY.ZstdCompressor(
        options={parameter.window_log: WINDOW_LOG_MAX + 1, parameter.compression_level: 1}
    )
    frame = encoder.compress(b"x" * 1000, encoder.FLUSH_BLOCK)
    assert window_log(frame) == WINDOW_LOG_MAX + 1
    with pytest.raises(CorruptBodyError):
        CODEC.decoder().decode(frame, 1000)


def test_frames_that_are_to_be_skipped_are():
    frame = CODEC.encode(b"a body", level=3)
    assert whole(SKIPPABLE + frame + SKIPPABLE + frame) == b"a bodya body"
    assert whole(SKIPPABLE) == b""
    decoder = CODEC.decoder()
    assert decoder.decode(SKIPPABLE[:-1], 100) == b""
    assert not decoder.is_complete


def test_a_frame_that_needs_a_dictionary_is_corrupt():
    samples = [b"a sample of the number %d " % number * 3 for number in range(2000)]
    dictionary = LIBRARY.train_dict(samples, 4000)
    frame = LIBRARY.compress(samples[5], zstd_dict=dictionary)
    with pytest.raises(CorruptBodyError):
        CODEC.decoder().decode(frame, 1000)
