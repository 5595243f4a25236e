"""The levels that were chosen can be used, and cost what their names say."""

import json
import random
from dataclasses import replace

import pytest

from perf_middleware.compression.drivers.available import available_codecs
from perf_middleware.compression.levels import LEVELS

_random = random.Random(1)
_WORDS = "the quick brown fox jumps over a lazy dog while many small items wait"
BODY = json.dumps(
    [
        {
            "id": number,
            "price": _random.random(),
            "text": " ".join(_random.choices(_WORDS.split(), k=12)),
        }
        for number in range(200)
    ]
).encode()
CODECS = available_codecs()


def test_every_codec_has_levels():
    assert set(LEVELS) == {codec.name for codec in CODECS}


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_the_ends_of_the_scale_are_levels_of_the_library(codec):
    levels = LEVELS[codec.name]
    for level in (levels.lowest, levels.highest):
        decoder = codec.decoder()
        assert decoder.decode(codec.encode(BODY, level=level), 1 << 20) == BODY


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_more_time_packs_better(codec):
    levels = LEVELS[codec.name]
    sizes = [
        len(codec.encode(BODY, level=level))
        for level in (levels.under_pressure, levels.on_the_fly, levels.kept)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]


def test_a_level_off_the_scale_is_refused():
    with pytest.raises(ValueError, match="between lowest and highest"):
        replace(LEVELS["gzip"], kept=10)
