"""Settings of content codings: `PERFORMANCE_COMPRESSION_*`."""

from __future__ import annotations

from pydantic import Field

from perf_middleware.compression.decoding import DecodingLimits
from perf_middleware.section import Section


class CompressionSettings(Section):
    """Content codings of requests: gzip, br, zstd, deflate."""

    decode_requests: bool = Field(
        default=False,
        description="Undo the content coding of request bodies. An app that does so itself keeps "
        "this off.",
    )
    decoded_bytes_max: int = Field(
        default=16 << 20, ge=1,
        description="What a body may have once decoded, bytes; more is answered with 413.",
    )  # fmt: skip
    decoded_ratio_max: int = Field(
        # Logs and sparse tables reach 50, a bomb 1,000.
        default=100, ge=1,
        description="How many times as long a body may become, from 1 MB on; more is answered "
        "with 413.",
    )  # fmt: skip

    def decoding_limits(self) -> DecodingLimits:
        """What one decoded body may have."""
        return DecodingLimits(
            decoded_bytes_max=self.decoded_bytes_max, ratio_max=self.decoded_ratio_max
        )
