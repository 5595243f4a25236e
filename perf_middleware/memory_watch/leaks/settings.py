"""Settings of the hunt for leaks: `PERFORMANCE_LEAKS_*`."""

from __future__ import annotations

from pydantic import Field, model_validator

from perf_middleware.memory_watch.leaks.history import POINTS
from perf_middleware.memory_watch.leaks.verdict import Rules
from perf_middleware.section import Section


class LeakSettings(Section):
    """Judges whether memory that grows is a leak, a cache that fills, or fragmentation.

    Growth that looks like a leak is looked into once: bounded caches are looked for, garbage is
    collected, and Python's allocations are traced for some seconds.
    """

    enabled: bool = Field(default=True, description="Judge the growth of the memory.")
    warm_up_s: float = Field(
        default=10.0, ge=0, le=3_600,
        description="How long after the start nothing is judged, seconds.",
    )  # fmt: skip
    window_s: float = Field(
        default=28.0, ge=POINTS, le=3_600,
        description="The shortest time that is judged, seconds: 14 points, for each of which the "
        "memory must be looked at; six longer ones, each four times the one before, are judged "
        "too.",
    )  # fmt: skip
    growth_bytes_min: int = Field(
        default=1 << 20, ge=1 << 12,
        description="Growth within `window_s` from which on it is looked into, bytes; twice that "
        "for each longer time.",
    )  # fmt: skip
    collect: bool = Field(
        default=True,
        description="Collect garbage twice after tracing, to see whether it is that what grows.",
    )
    census: bool = Field(
        default=True,
        description="Look through Python's objects for bounded caches that fill, before tracing.",
    )
    trace: bool = Field(
        default=True, description="Trace Python's allocations for `trace_s` when growth is suspect."
    )
    trace_s: float = Field(
        default=5.0, ge=0.1, le=60, description="How long one tracing takes, seconds."
    )
    trace_gap_s: float = Field(
        default=3_600.0, ge=1, le=604_800,
        description="Time between two tracings, seconds; the first of those that found nothing "
        "come sooner: after a sixteenth of it, then an eighth, and so on.",
    )  # fmt: skip
    routes: bool = Field(
        default=True, description="Measure what single requests leave behind, by route."
    )
    route_sample_s: float = Field(
        default=1.0, ge=0.05, le=3_600,
        description="Time between two requests that are measured, seconds: each the next one that "
        "runs alone after a look at the memory.",
    )  # fmt: skip
    routes_max: int = Field(
        default=200, ge=1, le=10_000, description="Routes that are kept apart; others are one."
    )

    def rules(self) -> Rules:
        """From when on growth is looked into."""
        return Rules(growth_bytes_min=self.growth_bytes_min)

    @property
    def bucket_us(self) -> int:
        """The time of one point of the finest level."""
        return round(self.window_s * 1_000_000 / POINTS)

    @model_validator(mode="after")
    def _gap_is_longer(self) -> LeakSettings:
        if self.trace_gap_s < self.trace_s:
            raise ValueError("trace_gap_s must not be less than trace_s")
        return self
