"""Finished jobs, kept for a while: so many, so many bytes, so long.

    oldest  [ job | job | job | ... | job ]  newest       each that comes lets at most LET_GO_MAX go

Nobody sweeps: a job that is over its age is gone for whoever asks, and its memory goes with one of
the next to finish.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LET_GO_MAX: Final = 4  # two would do, where each that comes is as large as those that go


class Finished(Protocol):
    """What is kept: `finished_us` on the clock of `now_us`, `kept_bytes` about its size."""

    finished_us: int
    kept_bytes: int


F = TypeVar("F", bound=Finished)


class Kept(Generic[F]):
    """The finished ones in the order of their ends; `let_go` is told of each that goes."""

    def __init__(
        self, *, jobs_max: int, bytes_max: int, age_us: int, let_go: Callable[[F], None]
    ) -> None:
        self._jobs: deque[F] = deque()
        self._jobs_max = jobs_max
        self._bytes_max = bytes_max
        self._age_us = age_us
        self._let_go = let_go
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: F) -> None:
        """Keep `job`, which has just finished; bounds of number and bytes hold when it returns."""
        jobs = self._jobs
        jobs.append(job)
        self.bytes += job.kept_bytes
        if len(jobs) <= self._jobs_max and self.bytes <= self._bytes_max:
            if job.finished_us - jobs[0].finished_us > self._age_us:
                self.trim(job.finished_us)
            return
        while jobs and (len(jobs) > self._jobs_max or self.bytes > self._bytes_max):
            self._drop()

    def trim(self, now_us: int, most: int = LET_GO_MAX) -> None:
        """Let go of some that are too old, `most` at once."""
        jobs = self._jobs
        while most and jobs and now_us - jobs[0].finished_us > self._age_us:
            self._drop()
            most -= 1

    def holds(self, job: F, now_us: int) -> bool:
        """Whether `job`, which was added, is young enough still."""
        return now_us - job.finished_us <= self._age_us

    def clear(self) -> None:
        """Let go of all."""
        while self._jobs:
            self._drop()

    def _drop(self) -> None:
        job = self._jobs.popleft()
        self.bytes -= job.kept_bytes
        self._let_go(job)


class DeadLetter(Protocol):
    """What failed for good, with all that is needed to run it again."""

    id: str
    kept_bytes: int


D = TypeVar("D", bound=DeadLetter)


class DeadLetters(Generic[D]):
    """Those that failed for good, oldest first; the oldest make room for the newest."""

    def __init__(self, *, jobs_max: int, bytes_max: int, let_go: Callable[[D], None]) -> None:
        self._jobs: OrderedDict[str, D] = OrderedDict()
        self._jobs_max = jobs_max
        self._bytes_max = bytes_max
        self._let_go = let_go
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[D]:
        return iter(self._jobs.values())

    def get(self, job_id: str) -> D | None:
        """The dead letter with this id, or None."""
        return self._jobs.get(job_id)

    def add(self, job: D) -> None:
        """Keep `job`, which has just failed."""
        self._jobs[job.id] = job
        self.bytes += job.kept_bytes
        while self._jobs and (len(self._jobs) > self._jobs_max or self.bytes > self._bytes_max):
            _, oldest = self._jobs.popitem(last=False)
            self.bytes -= oldest.kept_bytes
            self._let_go(oldest)

    def take(self, job_id: str) -> D | None:
        """The dead letter with this id, which is none any more; or None."""
        job = self._jobs.pop(job_id, None)
        if job is not None:
            self.bytes -= job.kept_bytes
        return job
