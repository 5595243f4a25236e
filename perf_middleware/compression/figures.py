"""What the compression of answers did, counted by coding and reason, and offered at scrape time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perf_middleware.families import NO_LABELS, Family, LabelSet, Value, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from perf_middleware.compression.repeats import RepeatedBodies

WAYS: Final = ("whole", "stream", "stored", "repeated")
"""Encoded in one piece, piece by piece, or not at all: a cache had the coded body, or it was made
for an answer before with the same body."""

REASONS: Final = (
    "not-accepted", "small", "type", "status", "coded", "range", "no-transform", "digest",
    "malformed", "route", "cross-site", "file", "trailers", "no-gain", "no-form", "pressure",
    "http-1.0", "busy", "failed",
)  # fmt: skip
"""Why answers left as they were."""


class CodingCounts:
    """Plain counters of one coding."""

    __slots__ = (
        "behind", "busy_ns", "in_bytes", "out_bytes", "repeated", "stored", "stream", "whole",
    )  # fmt: skip

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.whole = 0
        self.stream = 0
        self.stored = 0
        self.repeated = 0
        self.behind = 0
        self.in_bytes = 0
        self.out_bytes = 0
        self.busy_ns = 0


class CompressionFigures:
    """The counters of one `Compression`."""

    __slots__ = ("by_coding", "offloaded", "skipped", "streams")

    def __init__(self, codings: Sequence[str]) -> None:
        self.by_coding = {coding: CodingCounts() for coding in codings}
        self.skipped = dict.fromkeys(REASONS, 0)
        self.offloaded = 0
        self.streams = 0  # open now

    def reset(self) -> None:
        """Every count back to zero, in place: answers on their way hold on to them."""
        for counts in self.by_coding.values():
            counts.reset()
        for reason in REASONS:
            self.skipped[reason] = 0
        self.offloaded = 0

    def totals(self) -> dict[str, Any]:
        """The sums, JSON-able; `ratio` of the bytes that went in to those that came out."""
        rows = self.by_coding.values()
        in_bytes = sum(row.in_bytes for row in rows)
        out_bytes = sum(row.out_bytes for row in rows)
        return {
            "encoded": sum(row.whole + row.stream for row in rows),
            "stored": sum(row.stored for row in rows),
            "repeated": sum(row.repeated for row in rows),
            "streams": self.streams,
            "in_bytes": in_bytes,
            "out_bytes": out_bytes,
            "ratio": round(in_bytes / out_bytes, 2) if out_bytes else None,
            "skipped": {reason: count for reason, count in self.skipped.items() if count},
        }

    def families(self, *, step: int, repeats: RepeatedBodies | None) -> Iterator[Family]:
        """Everything that /metrics tells of compression at this step of pressure."""
        rows = self.by_coding.items()

        def per_coding(name: str, text: str, of: str, unit: str = "") -> Family:
            scale = 1e-9 if unit == "seconds" else 1
            return counter(
                name, text,
                tuple(Value(_coding(coding), getattr(row, of) * scale) for coding, row in rows),
                unit=unit,
            )  # fmt: skip

        yield counter(
            "perf_compression_responses",
            "Answers sent in a coding: encoded whole or as a stream, stored so, or encoded before.",
            tuple(
                Value(LabelSet([("coding", coding), ("form", form)]), getattr(row, form))
                for coding, row in rows
                for form in WAYS
            ),
        )
        yield counter(
            "perf_compression_skipped",
            "Answers that were sent as they were.",
            tuple(
                Value(LabelSet([("reason", reason)]), count)
                for reason, count in self.skipped.items()
            ),
        )
        yield per_coding(
            "perf_compression_behind", "Stored bodies encoded for later answers.", "behind"
        )
        yield per_coding(
            "perf_compression_input_bytes", "Bytes that were encoded.", "in_bytes", "bytes"
        )
        yield per_coding(
            "perf_compression_output_bytes", "Bytes that came of them.", "out_bytes", "bytes"
        )
        yield per_coding(
            "perf_compression_seconds", "Time that encoding took.", "busy_ns", "seconds"
        )
        yield counter(
            "perf_compression_offloaded",
            "Pieces that were encoded in a thread.",
            (Value(NO_LABELS, self.offloaded),),
        )
        yield gauge(
            "perf_compression_streams",
            "Streams that are being encoded.",
            (Value(NO_LABELS, self.streams),),
        )
        yield gauge(
            "perf_compression_pressure_step",
            "How far CPU pressure has lowered it: 0 not, 1 to a cheap level, 2 to identity.",
            (Value(NO_LABELS, step),),
            across="max",
        )
        if repeats is not None:
            yield gauge(
                "perf_compression_repeated_bodies",
                "Bodies that are remembered with their coded forms.",
                (Value(NO_LABELS, len(repeats)),),
            )
            yield gauge(
                "perf_compression_repeated_bytes",
                "Bytes that those take.",
                (Value(NO_LABELS, repeats.held_bytes),),
                unit="bytes",
            )


def _coding(coding: str) -> LabelSet:
    return LabelSet([("coding", coding)])
