"""Settings of the memory watch: `PERFORMANCE_MEMORY_*`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field, field_validator, model_validator

from perf_middleware.clock import monotonic_us
from perf_middleware.memory_watch.ladder import Ladder
from perf_middleware.memory_watch.runtime import MemoryWatch
from perf_middleware.probe_paths import PROBE_PATHS
from perf_middleware.section import Section

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.clock import Clock
    from perf_middleware.events import Events
    from perf_middleware.memory_watch.reading import MemorySample

US_PER_S: Final = 1_000_000


class MemorySettings(Section):
    """Watches the memory of this process against the tightest limit it is held to.

    Shares are used of that limit.  From `soft_share` on caches shrink; shedding requests and ending
    the worker are asked for.
    """

    enabled: bool = Field(default=True, description="Watch the memory.")
    interval_s: float = Field(
        default=1.0, ge=0.05, le=60,
        description="Time between two looks, seconds; less while memory grows towards a bound.",
    )  # fmt: skip
    limit_bytes: int | None = Field(
        default=None, ge=1 << 20,
        description="What this process may use, bytes (RSS); null: its control group's limit, its "
        "resource limits and the system's memory alone.",
    )  # fmt: skip
    soft_share: float = Field(
        default=0.75, gt=0, lt=1,
        description="From this share on caches shrink, cleanups run and garbage is collected.",
    )  # fmt: skip
    hard_share: float = Field(
        default=0.88, gt=0, lt=1, description="From this share on requests are shed, with `shed`."
    )
    critical_share: float = Field(
        default=0.95, gt=0, le=1,
        description="From this share on the worker finishes, with `finish`.",
    )  # fmt: skip
    relief_share: float = Field(
        default=0.05, gt=0, lt=0.5,
        description="By how much a share must be below a step before that is over.",
    )  # fmt: skip
    cooldown_s: float = Field(
        default=10.0, ge=0.1, le=3_600,
        description="Time between two cleanups while the share stays high, seconds.",
    )  # fmt: skip
    cleanup_s_max: float = Field(
        default=1.0, gt=0, le=60, description="How long all cleanups together may take, seconds."
    )
    shrink_share: float = Field(
        default=0.5, gt=0, le=1,
        description="How much of their bytes our caches let go of in one cleanup.",
    )  # fmt: skip
    collect: bool = Field(default=True, description="Collect garbage in a cleanup.")
    trim: bool = Field(
        default=True,
        description="Give free memory back to the system in a cleanup (malloc_trim of glibc).",
    )
    shed: bool = Field(
        default=False,
        description="Refuse requests with 503 from `hard_share` on, the least critical first.",
    )
    retry_after_s: int = Field(
        default=5, ge=1, le=3_600,
        description="What a refused request is told to wait at least, seconds; at most twice that.",
    )  # fmt: skip
    exempt_paths: tuple[str, ...] = Field(
        default=PROBE_PATHS, description="Paths that are never refused: health checks."
    )
    finish: bool = Field(
        default=False,
        description="Ask this worker to finish from `critical_share` on: it drains and exits, and "
        "its process manager starts a fresh one.",
    )
    finish_signal: Literal["SIGTERM", "SIGINT", "SIGQUIT"] = Field(
        default="SIGTERM", description="The signal that makes the server finish gracefully."
    )
    finish_uptime_s_min: float = Field(
        default=60.0, ge=0, le=86_400,
        description="A worker that is younger does not finish: it would start again and again, "
        "seconds.",
    )  # fmt: skip
    finish_gap_s: float = Field(
        default=30.0, ge=0, le=3_600,
        description="Time between the ends of two workers of a service on this host, seconds.",
    )  # fmt: skip

    @field_validator("exempt_paths")
    @classmethod
    def _paths_are_whole(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if not path.startswith("/"):  # it would match no request, and nobody would say so
                raise ValueError(f"a path starts with /, not {path!r}")
        return paths

    @model_validator(mode="after")
    def _steps_are_in_order(self) -> MemorySettings:
        if not self.soft_share < self.hard_share < self.critical_share:
            raise ValueError("soft_share < hard_share < critical_share must hold")
        if self.relief_share >= self.soft_share:
            raise ValueError("relief_share must be below soft_share")
        return self

    def make_ladder(self) -> Ladder:
        """The steps of these settings."""
        return Ladder(
            soft_share=self.soft_share,
            hard_share=self.hard_share,
            critical_share=self.critical_share,
            relief_share=self.relief_share,
            cooldown_us=round(self.cooldown_s * US_PER_S),
        )

    def make_watch(
        self,
        sample: Callable[[], MemorySample],
        *,
        trim: Callable[[], int | None] | None = None,
        events: Events | None = None,
        clock: Clock = monotonic_us,
    ) -> MemoryWatch:
        """The watch of one app with these settings; `sample` and `trim` are the probe's."""
        return MemoryWatch(
            sample,
            ladder=self.make_ladder(),
            interval_s=self.interval_s,
            cleanup_s_max=self.cleanup_s_max,
            shrink_share=self.shrink_share,
            collect=self.collect,
            trim=trim if self.trim else None,
            events=events,
            clock=clock,
        )
