"""Settings of the metrics feature: `PERFORMANCE_METRICS_*` and `PERFORMANCE_RUNTIME_*`."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from pydantic import Field, SecretStr, field_validator

from perf_middleware.section import Section, UrlPath

if TYPE_CHECKING:
    from perf_middleware.metrics.middleware import RequestRecorder

DEFAULT_BUCKETS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip

BOUND_S_MAX = 1e9  # 30 years: a finger that slipped, or no seconds


class MetricsSettings(Section):
    """Request metrics and their exposition."""

    enabled: bool = Field(default=True, description="Measure requests and serve the metrics path.")
    path: UrlPath = Field(default="/metrics", description="Where scrapers read.")
    token: SecretStr | None = Field(
        default=None, min_length=8,
        description="When set, the metrics path asks for `Authorization: Bearer …`.",
    )  # fmt: skip
    buckets_s: tuple[float, ...] = Field(
        default=DEFAULT_BUCKETS_S, description="Upper bounds of the exported histograms, seconds."
    )
    series_max: int = Field(
        default=10_000, ge=10, le=1_000_000,
        description="Request series (method, route, status) kept apart; more go to `other`.",
    )  # fmt: skip
    label_sets_max: int = Field(
        default=1_000, ge=1, le=100_000,
        description="Label sets kept apart in each counter, gauge and timer of the app's own.",
    )  # fmt: skip
    server_timing: bool = Field(
        default=False, description="Send `Server-Timing` with the time of each part to clients."
    )
    trace_context: bool = Field(
        default=True, description="Read W3C `traceparent`, and offer one for outgoing calls."
    )
    trace_response: bool = Field(
        default=False, description="Send the trace back to clients in `traceresponse`."
    )
    exemplars: bool = Field(
        default=True, description="Keep the trace id of a sampled request beside its bucket."
    )
    slow_request_s: float | None = Field(
        default=1.0, gt=0, description="Requests at least this slow are logged; none: never."
    )
    slow_log_per_minute_max: int = Field(
        default=60,
        ge=1,
        le=6_000,
        description="Slow-request lines a minute; more are only counted.",
    )
    default_registry: bool = Field(
        default=True, description="Also expose what the app registered with prometheus_client."
    )
    overhead: bool = Field(
        default=True, description="Measure what each of our own layers costs, by sampling."
    )
    overhead_sample_every: int = Field(
        default=1_000, ge=1, description="One request in so many is measured layer by layer."
    )
    workers: bool = Field(
        default=True, description="Add up the worker processes of this host in one answer."
    )
    workers_dir: Path | None = Field(
        default=None,
        description="Where worker processes exchange figures; none: found from their parent.",
    )
    workers_interval_s: float = Field(
        default=1.0, ge=0.05, le=60, description="How old another worker's figures may be, seconds."
    )

    @field_validator("buckets_s")
    @classmethod
    def _rising(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not 1 <= len(value) <= 64:
            raise ValueError("needs 1 to 64 bounds")
        if value[0] <= 0 or any(a >= b for a, b in pairwise(value)):
            raise ValueError("bounds must be positive and rising")
        if value[-1] == float("inf"):
            raise ValueError("leave out +Inf, it is always there")
        if value[-1] > BOUND_S_MAX:
            raise ValueError(f"bounds must be at most {BOUND_S_MAX:g}")
        return value

    def make_recorder(self) -> RequestRecorder:
        """What counts and times the requests of an app."""
        from perf_middleware.metrics.middleware import RequestRecorder

        return RequestRecorder(
            buckets_s=self.buckets_s,
            series_max=self.series_max,
            server_timing=self.server_timing,
            trace_context=self.trace_context,
            trace_response=self.trace_response,
            exemplars=self.exemplars,
            slow_request_s=self.slow_request_s,
            slow_log_per_minute_max=self.slow_log_per_minute_max,
        )


class RuntimeSettings(Section):
    """Probes of the process itself: event loop, garbage collector, operating system."""

    enabled: bool = Field(default=True, description="Watch the event loop and the process.")
    lag_interval_s: float = Field(
        default=0.1, ge=0.01, le=10, description="How often the event loop's lag is measured."
    )
    blocked_s: float = Field(
        default=0.25, ge=0.01, le=60,
        description="An event loop stuck this long is reported with the line that blocks it.",
    )  # fmt: skip
    blocked_kept_max: int = Field(
        default=100, ge=1, le=10_000, description="Reports of blocked moments that are kept."
    )
    own_paths: tuple[str, ...] = Field(
        default=(),
        description="Directories whose code counts as the app's own even inside site-packages.",
    )
    gc: bool = Field(default=True, description="Time the garbage collector's pauses.")

    @field_validator("own_paths")
    @classmethod
    def _absolute(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        # Compared with the files of running code, which are absolute; an empty one would match all.
        if not all(PurePath(path).is_absolute() for path in value):
            raise ValueError("must be absolute directories such as /srv/venv/site-packages/my_app")
        return value
