"""Settings of the task queue: `PERFORMANCE_TASKS_*`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from perf_middleware.section import Section
from perf_middleware.tasks.queue.options import DELAY_S_MAX, QueueLimits
from perf_middleware.tasks.queue.runtime import TaskQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextvars import ContextVar

DEFAULTS = QueueLimits()


class TaskSettings(Section):
    """The task queue: work that the app does behind its answers, in its own process."""

    enabled: bool = Field(
        default=True, description="Run enqueued tasks; switched off, the queue takes none."
    )
    workers: int = Field(
        default=DEFAULTS.workers, ge=1, le=10_000,
        description="Jobs that run at once. High jobs hold seven eighths of them at most, normal "
        "ones three quarters, low ones half.",
    )  # fmt: skip
    threads_max: int = Field(
        default=DEFAULTS.threads_max, ge=1, le=1_000,
        description="Threads for tasks that are not async.",
    )  # fmt: skip
    backlog_max: int = Field(
        default=DEFAULTS.backlog_max, ge=1, le=10_000_000,
        description="Jobs that may wait, those that are not due yet among them.",
    )  # fmt: skip
    backlog_bytes_max: int = Field(
        default=DEFAULTS.backlog_bytes_max, ge=1_000,
        description="About how many bytes the waiting jobs may take with their arguments; dead "
        "letters as much again.",
    )  # fmt: skip
    full_wait_s: float = Field(
        default=DEFAULTS.full_wait_s, ge=0, le=600,
        description="How long `enqueue` waits for room in a full queue before it raises "
        "QueueFullError, seconds; 0: not at all.",
    )  # fmt: skip
    fair_every: int = Field(
        default=DEFAULTS.fair_every, ge=2, le=10_000,
        description="Each so many jobs the oldest of all begins, whatever its class.",
    )  # fmt: skip
    paused_every_s: float = Field(
        default=DEFAULTS.paused_every_s, ge=0.001, le=60,
        description="While the app is busy low jobs pause, and normal ones while it is overloaded: "
        "one of those that pause begins each so many seconds.",
    )  # fmt: skip
    timeout_s: float | None = Field(
        default=DEFAULTS.timeout_s, gt=0, le=DELAY_S_MAX,
        description="How long an attempt may take where its task says nothing, seconds; null: "
        "without end.",
    )  # fmt: skip
    retry_first_s: float = Field(
        default=DEFAULTS.retry_first_s, ge=0.001, le=3_600,
        description="The longest wait before a first retry, seconds; it doubles with each.",
    )  # fmt: skip
    retry_most_s: float = Field(
        default=DEFAULTS.retry_most_s, ge=0.001, le=86_400,
        description="The longest wait before any retry, seconds.",
    )  # fmt: skip
    finished_max: int = Field(
        default=DEFAULTS.finished_max, ge=0, le=1_000_000,
        description="Finished jobs that are kept, to be asked for their results.",
    )  # fmt: skip
    finished_bytes_max: int = Field(
        default=DEFAULTS.finished_bytes_max, ge=0,
        description="About how many bytes the finished jobs may take with their results.",
    )  # fmt: skip
    finished_age_s: float = Field(
        default=DEFAULTS.finished_age_s, ge=0, le=DELAY_S_MAX,
        description="How long finished jobs are kept, seconds.",
    )  # fmt: skip
    dead_max: int = Field(
        default=DEFAULTS.dead_max, ge=0, le=1_000_000,
        description="Dead letters that are kept: jobs that failed for good, to be replayed.",
    )  # fmt: skip
    drain_s: float = Field(
        default=DEFAULTS.drain_s, ge=0, le=3_600,
        description="How long accepted jobs may still run as the app stops, before it does, "
        "seconds; then the rest is cancelled or handed back.",
    )  # fmt: skip

    @model_validator(mode="after")
    def _waits_are_in_order(self) -> TaskSettings:
        if self.retry_first_s > self.retry_most_s:
            raise ValueError("retry_first_s must not be above retry_most_s")
        return self

    def make_queue(
        self,
        *,
        level: Callable[[], int] | None = None,
        left_out: Sequence[tuple[ContextVar[Any], object]] = (),
        trace_id: Callable[[], str | None] | None = None,
    ) -> TaskQueue:
        """The queue; what it is given besides its bounds is as TaskQueue says."""
        limits = QueueLimits(**self.model_dump(exclude={"enabled"}))
        queue = TaskQueue(limits, level=level, left_out=left_out, trace_id=trace_id)
        if not self.enabled:
            queue.switch_off()
        return queue
