"""Settings of the task queue: `PERFORMANCE_TASKS_*`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from perf_middleware.section import Section
from perf_middleware.tasks.journal.entries import JournalLimits
from perf_middleware.tasks.queue.options import DELAY_S_MAX, QueueLimits
from perf_middleware.tasks.runtime import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextvars import ContextVar

DEFAULTS = QueueLimits()
JOURNAL = JournalLimits()


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

    background_priority: Literal["critical", "high", "normal", "low"] = Field(
        default="normal",
        description="The class of background tasks that are no decorated tasks.",
    )
    journal_path: Path | None = Field(
        default=None,
        description="The SQLite file that keeps durable tasks until they have run, on a disk of "
        "this host; null: there are none.",
    )
    journal_sync: Literal["full", "normal"] = Field(
        default="full",
        description="What a durable task survives once it is accepted: full also a power cut, "
        "normal the end of the process.",
    )
    journal_entries_max: int = Field(
        default=JOURNAL.entries_max, ge=1, le=100_000_000,
        description="Durable tasks in the file, of all processes that share it, dead letters too; "
        "then JournalFullError.",
    )  # fmt: skip
    journal_bytes_max: int = Field(
        default=JOURNAL.bytes_max, ge=1_000,
        description="About how many bytes they may take in it.",
    )  # fmt: skip
    journal_starts_max: int = Field(
        default=JOURNAL.starts_max, ge=1, le=1_000,
        description="How often a durable task is begun whose process ends meanwhile, before it is "
        "a dead letter.",
    )  # fmt: skip
    journal_unregistered_s: float = Field(
        default=JOURNAL.unregistered_s, ge=0, le=DELAY_S_MAX,
        description="How long durable tasks whose function is not registered here are left to "
        "another process that knows it, before they are dead letters, seconds.",
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
    ) -> Tasks:
        """The queue; what it is given besides its bounds is as TaskQueue says."""
        of_queue = {field.name for field in fields(QueueLimits)}
        queue = Tasks(
            QueueLimits(**self.model_dump(include=of_queue)),
            background_priority=self.background_priority,
            journal_path=self.journal_path if self.enabled else None,
            journal_limits=JournalLimits(
                entries_max=self.journal_entries_max,
                bytes_max=self.journal_bytes_max,
                starts_max=self.journal_starts_max,
                unregistered_s=self.journal_unregistered_s,
            ),
            journal_is_synced=self.journal_sync == "full",
            level=level,
            left_out=left_out,
            trace_id=trace_id,
        )
        if not self.enabled:
            queue.switch_off()
        return queue
