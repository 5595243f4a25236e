"""All jobs that the queue knows: those that live, and for a while those that have finished."""

from __future__ import annotations

import os
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.tasks.queue.kept import DeadLetters, Kept
from perf_middleware.tasks.queue.sizes import JOB_BYTES, approximate_bytes
from perf_middleware.tasks.queue.states import FAILED, FINISHED, HANDED_BACK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perf_middleware.tasks.queue.figures import QueueCounts
    from perf_middleware.tasks.queue.options import QueueLimits
    from perf_middleware.tasks.queue.runtime.job import Job
    from perf_middleware.tasks.queue.states import Status

US_PER_S: Final = 1_000_000
ID_BYTES: Final = 16
IDS_DRAWN: Final = 256  # at once: a call of the system for each would cost more than the rest
SEARCHED_MAX: Final = 20_000  # newest jobs that a listing looks at
LISTED_MAX: Final = 1_000
TRIMMED_AT_ONCE: Final = 100  # when somebody looks: old ones that nobody pushes out


def drawn_ids() -> Iterator[str]:
    """Names of jobs, which may be shown to clients: nobody can guess one from another."""
    while True:
        text = os.urandom(ID_BYTES * IDS_DRAWN).hex()
        for at in range(0, len(text), 2 * ID_BYTES):
            yield text[at : at + 2 * ID_BYTES]


class JobTable:
    """Finds jobs by id and by unique key; lets go of the finished ones in time."""

    def __init__(self, limits: QueueLimits, counts: QueueCounts) -> None:
        self._counts = counts
        self._jobs: dict[str, Job[Any]] = {}
        self.unique: dict[str, Job[Any]] = {}
        self.finished: Kept[Job[Any]] = Kept(
            jobs_max=limits.finished_max,
            bytes_max=limits.finished_bytes_max,
            age_us=round(limits.finished_age_s * US_PER_S),
            let_go=self._forget,
        )
        self.dead: DeadLetters[Job[Any]] = DeadLetters(
            jobs_max=limits.dead_max, bytes_max=limits.backlog_bytes_max, let_go=self._drop
        )
        self.handed_back: dict[str, Job[Any]] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job[Any]) -> None:
        """`job` is accepted."""
        self._jobs[job.id] = job
        if job.unique_key is not None:
            self.unique[job.unique_key] = job

    def finish(
        self, job: Job[Any], status: Status, value: object, error: BaseException | None, us: int
    ) -> None:
        """`job` has finished, and is kept as long as such are."""
        if job.unique_key is not None and self.unique.get(job.unique_key) is job:
            del self.unique[job.unique_key]
        job.settle(status, value, error, us)
        if status == FAILED:
            self.dead.add(job)  # with its arguments: it may be run again
        elif status == HANDED_BACK:
            self.handed_back[job.id] = job  # no more than had waited, until the next drain
        else:
            job.args, job.kwargs = (), {}
            job.kept_bytes = JOB_BYTES
            if value is not None:
                job.kept_bytes += approximate_bytes(value)
            self.finished.add(job)

    def get(self, job_id: str, now_us: int) -> Job[Any] | None:
        """The job with this id; None for one that is not known, or not any more."""
        job = self._jobs.get(job_id)
        if job is None or job.status not in FINISHED or job.status in {FAILED, HANDED_BACK}:
            return job
        return job if self.finished.holds(job, now_us) else None

    def listed(
        self, now_us: int, *, status: Status | None, task: str | None, limit: int
    ) -> list[Job[Any]]:
        """The newest first, `limit` at most, among the SEARCHED_MAX newest."""
        self.trim(now_us)
        found: list[Job[Any]] = []
        for job in islice(reversed(self._jobs.values()), SEARCHED_MAX):
            if len(found) >= min(limit, LISTED_MAX):
                break
            if status in {None, job.status} and task in {None, job.plan.name}:
                found.append(job)
        return found

    def trim(self, now_us: int) -> None:
        """Some of what is too old goes."""
        self.finished.trim(now_us, TRIMMED_AT_ONCE)

    def take_again(self, job_id: str) -> Job[Any] | None:
        """A dead letter, or one that was handed back, which is none any more."""
        job = self.dead.take(job_id)
        if job is None:
            job = self.handed_back.pop(job_id, None)
        if job is not None:
            self._forget(job)
        return job

    def forget_handed_back(self) -> None:
        """The queue closes again: what it did not run the last time makes room."""
        for job in self.handed_back.values():
            self._forget(job)
        self.handed_back.clear()

    def _drop(self, job: Job[Any]) -> None:
        self._counts.dead_dropped += 1
        self._forget(job)

    def _forget(self, job: Job[Any]) -> None:
        del self._jobs[job.id]
