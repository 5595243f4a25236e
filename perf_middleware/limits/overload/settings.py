"""Settings of the overload level: `PERFORMANCE_OVERLOAD_*`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from perf_middleware.limits.overload.probes import CpuShare
from perf_middleware.limits.overload.runtime import OverloadLevel
from perf_middleware.section import Section

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.events import Events


class OverloadSettings(Section):
    """One level for all layers: 0 normal, 1 busy, 2 overloaded; measuring it changes nothing.

    A bound `…_overloaded…` of null: that signal alone never says more than busy.
    """

    enabled: bool = Field(default=True, description="Measure the overload level.")
    obey: bool = Field(
        default=True,
        description="Let layers act on it; false is a dry run: measured and told, and layers see "
        "a normal level.",
    )
    interval_s: float = Field(
        default=0.25, ge=0.05, le=5,
        description="Time between two samples, seconds; a sample that means more than the level "
        "is asked again after a fifth of it.",
    )  # fmt: skip
    fall_s: float = Field(
        default=2.5, ge=0.1, le=300,
        description="How long every signal must be well below a level before it falls, one level "
        "at a time, seconds.",
    )  # fmt: skip
    loop_lag_busy_s: float = Field(
        default=0.1, gt=0, le=60,
        description="Busy from this lag of the event loop on, seen twice in a row, seconds.",
    )  # fmt: skip
    loop_lag_overloaded_s: float | None = Field(
        default=0.3, gt=0, le=60, description="Overloaded from this lag on, seconds."
    )
    cpu_busy_share: float | None = Field(
        # A worker that uses all of its processor and answers in time is well used, not overloaded.
        default=0.9, gt=0, le=1,
        description="Busy from this share of the usable processor time on; null: never. CPU alone "
        "never says overloaded.",
    )  # fmt: skip
    memory_busy_share: float = Field(
        default=0.85, gt=0, le=1,
        description="Busy from this share of the usable memory on, where it is measured.",
    )  # fmt: skip
    memory_overloaded_share: float | None = Field(
        default=0.95, gt=0, le=1, description="Overloaded from this share on."
    )
    queue_age_busy_s: float = Field(
        default=0.1, gt=0, le=300,
        description="Busy once the oldest request in our own waiting line is so old, seconds.",
    )  # fmt: skip
    queue_age_overloaded_s: float | None = Field(
        default=0.5, gt=0, le=300, description="Overloaded from this age on, seconds."
    )
    thread_queue_busy_s: float = Field(
        default=0.1, gt=0, le=300,
        description="Busy once a sync endpoint has waited so long for a thread, seconds.",
    )  # fmt: skip
    thread_queue_overloaded_s: float | None = Field(
        default=1.0, gt=0, le=300, description="Overloaded from this wait on, seconds."
    )

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> OverloadSettings:
        for signal, unit in (
            ("loop_lag", "s"), ("memory", "share"), ("queue_age", "s"), ("thread_queue", "s"),
        ):  # fmt: skip
            busy: float = getattr(self, f"{signal}_busy_{unit}")
            overloaded: float | None = getattr(self, f"{signal}_overloaded_{unit}")
            if overloaded is not None and overloaded < busy:
                raise ValueError(
                    f"{signal}_overloaded_{unit} must not be below {signal}_busy_{unit}"
                )
        return self

    def make_level(
        self,
        *,
        events: Events | None = None,
        cpu_quota: Callable[[], float | None] | None = None,
        memory_share: Callable[[], float | None] | None = None,
        queue_age_s: Callable[[], float | None] | None = None,
        thread_queue_s: Callable[[], float | None] | None = None,
    ) -> OverloadLevel:
        """The level of one app with these settings; a signal whose callable is absent is not there.

        `cpu_quota`: processors that the control group allows, None without a limit;
        `memory_share`: used of usable memory, 0 to 1; `queue_age_s` and `thread_queue_s`: how long
        the oldest waits, 0 where nobody does.  More: `OverloadLevel.add_signal`.
        """
        level = OverloadLevel(
            lag_busy_s=self.loop_lag_busy_s,
            lag_overloaded_s=self.loop_lag_overloaded_s,
            interval_s=self.interval_s,
            fall_s=self.fall_s,
            obey=self.obey,
            events=events,
        )
        if self.cpu_busy_share is not None:
            cpu = CpuShare(cpu_quota=cpu_quota)
            level.add_signal("cpu", cpu.read, busy_at=self.cpu_busy_share, smoothing="mean")
        if memory_share is not None:
            level.add_signal(
                "memory", memory_share, busy_at=self.memory_busy_share,
                # Memory comes back in large pieces, or not at all: near the bound is still on it.
                overloaded_at=self.memory_overloaded_share, relief=0.95,
            )  # fmt: skip
        if queue_age_s is not None:
            level.add_signal(
                "queue_age", queue_age_s, busy_at=self.queue_age_busy_s,
                overloaded_at=self.queue_age_overloaded_s,
            )  # fmt: skip
        if thread_queue_s is not None:
            level.add_signal(
                "thread_queue", thread_queue_s, busy_at=self.thread_queue_busy_s,
                overloaded_at=self.thread_queue_overloaded_s,
            )  # fmt: skip
        return level
