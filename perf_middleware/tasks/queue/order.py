"""Which job is next: by class, and now and then by age, so that none waits for ever.

    critical  c c c c c          most picks: the first of the highest class
    high      h
    normal    n n n n n n n
    low       l l l              every `fair_every`-th pick: the oldest of all

- A job for whose class a worker is free starts after at most `fair_every * (older + 1)` picks,
  where `older` are those that were waiting as it came: each fair pick takes one of them.
- Of eight workers and more no class but the highest may hold all (EIGHTHS): one that is long at
  work cannot keep a more urgent one out.  Threads are a bound of their own: a call that waits for
  one keeps no worker.
- While the app is busy low jobs pause, while it is overloaded normal ones too; of those that pause
  one is picked each `paused_every_us`, the oldest.

A job that is taken out stays in its line as a tombstone (its `ticket` is 0) until it is at the head
or half of the line is dead: O(1) in the mean.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, Literal, Protocol, TypeAlias, TypeVar, get_args

Priority: TypeAlias = Literal["critical", "high", "normal", "low"]
PRIORITIES: Final[tuple[Priority, ...]] = get_args(Priority)
RANK_OF: Final[dict[str, int]] = {name: rank for rank, name in enumerate(PRIORITIES)}
RANKS: Final = len(PRIORITIES)

# Of eight workers: how many may work for each class at once.
EIGHTHS: Final = (8, 7, 6, 4)
# Of the levels normal, busy and overloaded: the first class that pauses.
PAUSED_FROM: Final = (RANKS, RANK_OF["low"], RANK_OF["normal"])
DEAD_KEPT: Final = 64  # tombstones that are not worth a sweep


class Waiting(Protocol):
    """What stands in line.  `ticket` is 0 outside of it and rises with age in it."""

    rank: int
    is_threaded: bool
    ticket: int


W = TypeVar("W", bound=Waiting)


def shares_of(workers: int) -> tuple[int, ...]:
    """How many of `workers` each class may hold at once, rounded up."""
    return tuple(-(-workers * eighths // 8) for eighths in EIGHTHS)


def paused_from(level: int) -> int:
    """The first rank that pauses at an overload level (0 normal, 1 busy, 2 overloaded)."""
    return PAUSED_FROM[min(max(level, 0), len(PAUSED_FROM) - 1)]


class Order(Generic[W]):
    """The lines, what is at work for each, and who is next."""

    def __init__(
        self, *, workers: int, threads_max: int, fair_every: int, paused_every_us: int
    ) -> None:
        self._lines: tuple[tuple[deque[W], deque[W]], ...] = tuple(
            (deque(), deque()) for _ in range(RANKS)
        )
        self._shares = shares_of(workers)
        self._threads_max = threads_max
        self._fair_every = fair_every
        self._paused_every_us = paused_every_us
        self._paused_due_us = 0
        self._picks = 0
        self._tickets = 0
        self._dead = [0] * RANKS
        self.waiting = [0] * RANKS
        self.at_work = [0] * RANKS
        self.threads = 0  # at work, also for a job that is over meanwhile
        self.count = 0

    def push(self, job: W) -> None:
        """`job` stands in line, last of its class."""
        self._tickets += 1
        job.ticket = self._tickets
        rank = job.rank
        self._lines[rank][job.is_threaded].append(job)
        self.waiting[rank] += 1
        self.count += 1

    def discard(self, job: W) -> None:
        """`job`, which stands in line, leaves it."""
        rank = job.rank
        job.ticket = 0
        self.waiting[rank] -= 1
        self.count -= 1
        self._dead[rank] += 1
        if self._dead[rank] > DEAD_KEPT + self.waiting[rank]:
            for line in self._lines[rank]:
                alive = [each for each in line if each.ticket]
                line.clear()
                line.extend(alive)
            self._dead[rank] = 0

    def pick(self, now_us: int, paused: int = RANKS) -> W | None:
        """The next job, which is at work from now on; None where none may begin.

        Of the ranks from `paused` on one job begins each `paused_every_us`.
        """
        if not self.count:
            return None
        is_fair = self._picks + 1 >= self._fair_every
        job = self._first(0, paused, by_age=is_fair)
        if paused < RANKS and (job is None or now_us >= self._paused_due_us):
            job = self._after_pause(job, now_us, paused)
        if job is None:
            return None
        self._picks = 0 if is_fair else self._picks + 1
        rank = job.rank
        self._lines[rank][job.is_threaded].popleft()
        job.ticket = 0
        self.waiting[rank] -= 1
        self.count -= 1
        self.at_work[rank] += 1
        if job.is_threaded:
            self.threads += 1
        return job

    def ended(self, rank: int) -> None:
        """A job of `rank` is at work no more; of a thread `thread_ended` tells."""
        self.at_work[rank] -= 1

    def thread_ended(self) -> None:
        """A thread is free again."""
        self.threads -= 1

    def forget_threads(self) -> None:
        """Nobody will tell of those that are at work still."""
        self.threads = 0

    def has_paused(self, paused: int) -> bool:
        """Whether a job waits in a class that pauses."""
        return any(self.waiting[paused:])

    def take_all(self) -> list[W]:
        """Everybody leaves, the oldest first."""
        left = [job for pair in self._lines for line in pair for job in line if job.ticket]
        left.sort(key=lambda job: job.ticket)
        for pair in self._lines:
            for line in pair:
                line.clear()
        for job in left:
            job.ticket = 0
        self.waiting, self._dead, self.count = [0] * RANKS, [0] * RANKS, 0
        return left

    def _after_pause(self, job: W | None, now_us: int, paused: int) -> W | None:
        """The oldest that pauses where one is due, else `job`."""
        if now_us < self._paused_due_us:
            return job
        late = self._first(paused, RANKS, by_age=True)
        if late is None:
            return job
        self._paused_due_us = now_us + self._paused_every_us
        return late

    def _first(self, start: int, end: int, *, by_age: bool) -> W | None:
        """The head of the highest class from `start` to before `end`; or the oldest of them."""
        best: W | None = None
        has_thread = self.threads < self._threads_max
        for rank in range(start, end):
            if not self.waiting[rank] or self.at_work[rank] >= self._shares[rank]:
                continue
            on_loop, in_threads = self._lines[rank]
            for line in (on_loop, in_threads) if in_threads and has_thread else (on_loop,):
                while line and not line[0].ticket:
                    line.popleft()
                    self._dead[rank] -= 1
                if line and (best is None or line[0].ticket < best.ticket):
                    best = line[0]
            if best is not None and not by_age:
                break
        return best
