"""How hard each coding tries: what may be set, and what was chosen by measurement.

    on_the_fly      a response that somebody waits for
    under_pressure  the same while the CPU is scarce
    stream          a response that stays open, flushed at each piece, with a small window
    kept            a body that is encoded once, in the background, and sent many times

docs/compression.md has the figures behind these numbers; `python -m benchmarks.codecs` makes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """One coding's levels, on its library's own scale; `lowest` and `highest` are its ends."""

    lowest: int
    highest: int
    on_the_fly: int
    under_pressure: int
    stream: int
    kept: int

    def __post_init__(self) -> None:
        chosen = (self.on_the_fly, self.under_pressure, self.stream, self.kept)
        if not all(self.lowest <= level <= self.highest for level in chosen):
            raise ValueError(f"levels must be between lowest and highest: {self}")


LEVELS: Final[Mapping[str, Levels]] = MappingProxyType(
    {
        "zstd": Levels(
            lowest=1,
            highest=19,  # above, windows of more than the 8 MB that RFC 9659 §3 allows
            on_the_fly=3,
            under_pressure=1,
            stream=6,
            kept=15,
        ),
        "br": Levels(
            lowest=0,
            highest=11,
            on_the_fly=4,
            under_pressure=1,
            stream=5,  # packs an event stream by 39 % better than 4, in less memory
            kept=10,  # 9 is no faster, 11 takes three times as long
        ),
        "gzip": Levels(
            lowest=1,  # 0 would store the body as it is
            highest=9,
            on_the_fly=4,
            under_pressure=1,
            stream=6,
            kept=7,  # 8 takes twice as long on program text, for nothing
        ),
    }
)
