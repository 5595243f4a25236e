"""Settings of content codings: `PERFORMANCE_COMPRESSION_*`."""

from __future__ import annotations

import logging
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from perf_middleware.coding_choice import Choice
from perf_middleware.compression.choices import PathChoices
from perf_middleware.compression.content_types import DEFAULT_PATTERNS, CompressibleTypes
from perf_middleware.compression.decoding import DecodingLimits
from perf_middleware.compression.drivers.available import available_codecs
from perf_middleware.compression.encoding import Judge
from perf_middleware.compression.length_hiding import PADDING_BYTES_MAX
from perf_middleware.compression.levels import LEVELS
from perf_middleware.compression.pressure import IDENTITY, LOWER_LEVEL, Thresholds
from perf_middleware.compression.repeats import RepeatedBodies
from perf_middleware.compression.runtime import Coding, Compression
from perf_middleware.path_patterns import PathPattern
from perf_middleware.section import Section

logger = logging.getLogger("perf_middleware.compression")

CodingName: TypeAlias = Literal["zstd", "br", "gzip"]
_LEVEL_OF: Final = {
    "on_the_fly": ": a higher level packs better and takes longer.",
    "stream": " with streams that stay open.",
    "kept": " with a stored answer, once, behind the others.",
}
_HIGHEST_STEP: Final = {"level": LOWER_LEVEL, "identity": IDENTITY}


def _one_or_several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _of_types(patterns: tuple[str, ...]) -> tuple[str, ...]:
    CompressibleTypes.of(patterns)  # raises for what is no pattern
    return patterns


def _each_once(codings: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(codings)) != len(codings):
        raise ValueError("must not name a coding twice")
    return codings


Types: TypeAlias = Annotated[
    tuple[str, ...], BeforeValidator(_one_or_several), AfterValidator(_of_types)
]


def _level(coding: CodingName, use: Literal["on_the_fly", "stream", "kept"]) -> Any:
    levels = LEVELS[coding]
    return Field(
        default=getattr(levels, use),
        ge=levels.lowest,
        le=levels.highest,
        description=f"How hard {coding} tries{_LEVEL_OF[use]}",
    )


class CompressionRule(Section):
    """What holds for the paths that match `path`: the first rule that matches counts, alone.

    It takes the place of a decorator on the endpoint: who runs the app has the last word.
    """

    path: str = Field(
        description="Pattern of the path: /items/{id}, /files/{path:path}, /static/*."
    )
    encode: bool = Field(default=True, description="Encode answers here.")
    hide_length: bool = Field(
        default=False, description="Add random bytes to coded answers, which decoders skip."
    )

    @model_validator(mode="after")
    def _has_a_pattern(self) -> CompressionRule:
        self.pattern()
        return self

    def pattern(self) -> PathPattern:
        return PathPattern.of(self.path)

    def choice(self) -> Choice:
        return Choice(encode=self.encode, hide_length=self.hide_length)


class CompressionSettings(Section):
    """Content codings: what leaves is encoded as the client accepts (RFC 9110 §12.5.3).

    What enters is decoded where `decode_requests` says so.
    """

    enabled: bool = Field(default=True, description="Encode answers.")
    codings: Annotated[
        tuple[CodingName, ...], BeforeValidator(_one_or_several), AfterValidator(_each_once)
    ] = Field(
        default=("zstd", "br", "gzip"), min_length=1,
        description="What is offered, best first; one whose library is missing is left out.",
    )  # fmt: skip
    zstd_level: int = _level("zstd", "on_the_fly")
    br_level: int = _level("br", "on_the_fly")
    gzip_level: int = _level("gzip", "on_the_fly")
    zstd_stream_level: int = _level("zstd", "stream")
    br_stream_level: int = _level("br", "stream")
    gzip_stream_level: int = _level("gzip", "stream")
    zstd_kept_level: int = _level("zstd", "kept")
    br_kept_level: int = _level("br", "kept")
    gzip_kept_level: int = _level("gzip", "kept")
    stored_forms: bool = Field(
        default=True,
        description="Keep coded forms beside a stored answer, so that no hit waits for a codec.",
    )
    repeated_bytes_max: int = Field(
        # 200 answers of 20 kB, each in two codings; what an app polls and serves by hand is fewer.
        default=8 << 20, ge=0,
        description="Memory for bodies that are answered again and again, with their coded forms, "
        "bytes; 0 encodes each of them anew.",
    )  # fmt: skip
    minimum_bytes: int = Field(
        default=500, ge=0, le=1 << 30, description="A shorter body is sent as it is, bytes."
    )
    types: Types | None = Field(
        default=None,
        description="Media types that are encoded: text/*, */*+json, font/ttf; none given: a table "
        "of what is worth it.",
    )
    more_types: Types = Field(default=(), description="Media types beside those.")
    event_streams: bool = Field(
        default=True, description="Encode text/event-stream, flushed at each event."
    )
    streams_max: int = Field(
        default=1_000, ge=0,
        description="Streams that are encoded at once (64 to 490 kB each); a further one is "
        "sent as it is.",
    )  # fmt: skip
    thread_bytes_min: int = Field(
        default=128 * 1024, ge=1,
        description="Pieces from this size on are encoded in a thread, bytes.",
    )  # fmt: skip
    threads_max: int = Field(
        default=4, ge=1, le=64, description="Threads that encode at the same time."
    )
    adaptive: Literal["identity", "level", "off"] = Field(
        default="identity",
        description="While the CPU is scarce: a cheap level and then nothing is encoded, the "
        "cheap level alone, or no change.",
    )
    cross_site: Literal["identity", "encode"] = Field(
        default="identity",
        description="Answers to requests with cookies that another site made the browser send, "
        "without a click: as they are, because BREACH needs such.",
    )
    hidden_bytes_max: int = Field(
        default=100, ge=1, le=PADDING_BYTES_MAX,
        description="Random bytes at most where a length is hidden.",
    )  # fmt: skip
    rules: tuple[CompressionRule, ...] = Field(default=(), description="What holds for some paths.")
    decode_requests: bool = Field(
        default=False,
        description="Undo the content coding of request bodies, whether answers are encoded or "
        "not. An app that does so itself keeps this off.",
    )
    decoded_bytes_max: int = Field(
        default=16 << 20, ge=1,
        description="What a request's body may have once decoded, bytes; more is answered with "
        "413.",
    )  # fmt: skip
    decoded_ratio_max: int = Field(
        # Logs and sparse tables reach 50, a bomb 1,000.
        default=100, ge=1,
        description="How many times as long it may become, from 1 MB on; more is answered with "
        "413.",
    )  # fmt: skip

    def _types(self) -> CompressibleTypes:
        wanted = DEFAULT_PATTERNS if self.types is None else self.types
        return CompressibleTypes.of((*wanted, *self.more_types))

    def decoding_limits(self) -> DecodingLimits:
        """What one decoded body of a request may have."""
        return DecodingLimits(
            decoded_bytes_max=self.decoded_bytes_max, ratio_max=self.decoded_ratio_max
        )

    def make_compression(self) -> Compression:
        """What encodes answers with these settings, with the libraries that are there."""
        # Nothing is imported for a coding that is not wanted.
        codecs = available_codecs(self.codings if self.enabled else ())
        missing = set(self.codings) - {codec.name for codec in codecs}
        if missing and self.enabled and "codings" in self.model_fields_set:
            logger.warning(
                "compression.codings: %s cannot be offered, the library is not installed "
                '(pip install "perf-middleware[compression]")',
                ", ".join(sorted(missing)),
            )
        return Compression(
            codings=[
                Coding(
                    codec,
                    level=getattr(self, f"{codec.name}_level"),
                    stream_level=getattr(self, f"{codec.name}_stream_level"),
                    cheap_level=LEVELS[codec.name].under_pressure,
                    kept_level=getattr(self, f"{codec.name}_kept_level"),
                )
                for codec in codecs
            ],
            judge=Judge(
                minimum_bytes=self.minimum_bytes,
                types=self._types(),
                event_streams=self.event_streams,
            ),
            paths=PathChoices([(rule.pattern(), rule.choice()) for rule in self.rules]),
            streams_max=self.streams_max,
            thread_bytes_min=self.thread_bytes_min,
            threads_max=self.threads_max,
            thresholds=Thresholds(highest=_HIGHEST_STEP[self.adaptive])
            if self.adaptive != "off"
            else None,
            encodes_cross_site=self.cross_site == "encode",
            hidden_bytes_max=self.hidden_bytes_max,
            keeps_forms=self.stored_forms,
            repeats=RepeatedBodies(self.repeated_bytes_max) if self.repeated_bytes_max else None,
        )
