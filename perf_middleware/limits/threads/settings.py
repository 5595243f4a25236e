"""Settings of the threads of sync endpoints: `PERFORMANCE_THREADS_*`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from perf_middleware.limits.threads.runtime import ThreadOffload
from perf_middleware.limits.threads.sizing import US_PER_S, SizeBounds
from perf_middleware.probe_paths import PROBE_PATHS
from perf_middleware.section import Section, UrlPath

if TYPE_CHECKING:
    from collections.abc import Callable


class ThreadSettings(Section):
    """The threads of sync endpoints: measured, and a few more for probes."""

    enabled: bool = Field(default=True, description="Measure the threads of sync endpoints.")
    reserved_max: int = Field(
        default=4, ge=0, le=32,
        description="Threads beyond all others that only requests to `probe_paths` may use, so "
        "that a sync health check never waits behind busy endpoints.",
    )  # fmt: skip
    probe_paths: tuple[UrlPath, ...] = Field(
        default=PROBE_PATHS, max_length=100, description="Paths of health checks, exact."
    )
    switch_interval_s: float | None = Field(
        default=None, ge=0.0001, le=1,
        description="How long a thread may hold the interpreter lock while others wait for it, "
        "seconds (sys.setswitchinterval; Python's own is 0.005), for the whole process while the "
        "app runs; none given: as it is.",
    )  # fmt: skip
    adaptive: bool = Field(
        # More threads may open more database connections than the app has reckoned with.
        default=False,
        description="Change the number of threads: more while calls wait for one and more of them "
        "bring something, fewer while they lie idle.",
    )
    threads_min: int = Field(
        default=40, ge=1, le=10_000, description="Threads at least, where `adaptive` is on."
    )
    threads_max: int = Field(
        default=200, ge=1, le=10_000, description="Threads at most, where `adaptive` is on."
    )
    idle_s: float = Field(
        default=30.0, ge=0.1, le=3_600,
        description="How long half of the threads lie idle before some are given up, where "
        "`adaptive` is on, seconds.",
    )  # fmt: skip
    interval_s: float = Field(
        default=0.25, ge=0.05, le=60,
        description="Time between two looks at the number of threads, where `adaptive` is on, "
        "seconds.",
    )  # fmt: skip

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> ThreadSettings:
        if self.threads_min > self.threads_max:
            raise ValueError("threads_min must not be above threads_max")
        return self

    def make_threads(self, *, cpu_quota: Callable[[], float | None] | None = None) -> ThreadOffload:
        """What watches the threads; `cpu_quota`: processors that the control group allows."""
        return ThreadOffload(
            reserved_max=self.reserved_max,
            bounds=SizeBounds(
                threads_min=self.threads_min,
                threads_max=self.threads_max,
                idle_us=round(self.idle_s * US_PER_S),
            )
            if self.adaptive
            else None,
            interval_s=self.interval_s,
            switch_interval_s=self.switch_interval_s,
            cpu_quota=cpu_quota,
        )
