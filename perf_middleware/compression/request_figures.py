"""What request decoding did, counted plainly and offered at scrape time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from perf_middleware.families import NO_LABELS, Family, LabelSet, Value, counter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Reason: TypeAlias = Literal["coding", "corrupt", "bytes", "ratio"]


class RequestDecodingFigures:
    """The counters of one middleware; labels come from our own tables only, so they are few."""

    __slots__ = ("decoded", "decoded_bytes", "encoded_bytes", "refused")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Every count back to zero."""
        self.decoded: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        self.encoded_bytes = 0
        self.decoded_bytes = 0

    def count_decoded(self, coding: str) -> None:
        """One request whose body is being decoded."""
        self.decoded[coding] = self.decoded.get(coding, 0) + 1

    def count_refused(self, reason: Reason) -> None:
        """One request that was refused, or cut off."""
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def families(self) -> Iterator[Family]:
        """Everything that /metrics tells of it."""
        yield counter(
            "perf_compression_request_decoded",
            "Requests whose body came in a content coding that was undone.",
            tuple(_labelled("coding", self.decoded)),
        )
        yield counter(
            "perf_compression_request_refused",
            "Encoded bodies that were refused (coding: 415; corrupt: 400; bytes, ratio: 413).",
            tuple(_labelled("reason", self.refused)),
        )
        yield counter(
            "perf_compression_request_encoded_bytes", "Bytes of encoded bodies that were read.",
            (Value(NO_LABELS, self.encoded_bytes),),
        )  # fmt: skip
        yield counter(
            "perf_compression_request_decoded_bytes", "Bytes that were made of them.",
            (Value(NO_LABELS, self.decoded_bytes),),
        )  # fmt: skip


def _labelled(name: str, counts: Mapping[str, int]) -> Iterator[Value]:
    for value, count in counts.items():
        yield Value(LabelSet([(name, value)]), count)
