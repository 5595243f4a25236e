"""Readers and writers at random, and readers that follow each write at once; all is noted.

Of three groups of rows, one at a time gets most of the writes; readers look everywhere.  Right
after the answer to a write, readers ask each worker for what the write has made old: whoever still
has it shows it then.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.database.linearizability.history import Change, History, Read, Seen, Write
from tests.database.linearizability.tables import BOOKS, GROUPS
from tests.database.linearizability.wire import Answer, LostError, Wire, now_us

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

VIEWS = (*(f"book/{n}" for n in range(BOOKS)), "books", "totals", "page", "report")
SNAPSHOTS = {"books", "totals"}  # one statement each
HOWS = Counter(orm=3, core=3, text=3, two=3, new_row=2, taken_back=2, savepoint=2, away=1, back=2)
WRITTEN = {"text": "l", "two": "bl", "savepoint": "l", "taken_back": ""}
"""Which rows a write may leave changed: books (the default), loans."""
TURN_S = 3.0  # how long one group gets most of the writes
ROWS_OF = {"b": (*(f"book/{n}" for n in range(BOOKS)), "books", "totals", "page", "report"),
           "l": ("totals", "page", "report")}  # fmt: skip

LONGER_S = 240.0  # at most, where something is missing at the end

ops = itertools.count(1_000)


@dataclass
class Pace:
    """How much: each reader and writer waits about so long between two requests."""

    seconds: float
    readers: int = 6
    read_every_s: float = 0.1
    writers: int = 3
    write_every_s: float = 0.35
    followers: int = 4
    """Reads right after each answer to a write."""
    pause_ms: int = 20
    paused_share: float = 0.3
    """Of the requests; the others are as quick as they can."""


@dataclass
class Counts:
    """What was asked and what came of it."""

    asked: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    """Of reads, by view."""
    lost: Counter[str] = field(default_factory=Counter)
    losses: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Answers that nobody has an excuse for."""


class Load:
    """Clients of one mode of the app; `history` is what they saw."""

    def __init__(self, wire: Wire, mode: str, pace: Pace, history: History, seed: int) -> None:
        self._wire = wire
        self._mode = mode
        self._pace = pace
        self._draw = random.Random(seed)
        self._began_us = self._ends_us = now_us()
        self._followers: set[asyncio.Task[None]] = set()
        self.history = history
        self.counts = Counts()
        self.on_loss: Callable[[], object] = lambda: None
        """Called when an answer did not come: somebody may have died."""
        self.lacks: Callable[[], object] = lambda: None
        """What a real test still needs when its time is over; so much longer it goes on."""

    async def run(self) -> None:
        """As long as `pace` says, longer while it lacks something, and until the last answer."""
        pace = self._pace
        self._began_us = now_us()
        self._ends_us = self._began_us + int(pace.seconds * 1e6)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._meet_workers())
            for _ in range(pace.readers):
                tasks.create_task(self._again(pace.read_every_s, self._read_any))
            for _ in range(pace.writers):
                tasks.create_task(self._again(pace.write_every_s, self._write_any))
        while self._followers:
            await asyncio.wait(self._followers)

    @property
    def is_over(self) -> bool:
        late_us = now_us() - self._ends_us
        return late_us >= 0 and (late_us >= LONGER_S * 1e6 or not self.lacks())

    async def until(self, at_s: float) -> None:
        """Until so many seconds after the begin."""
        await asyncio.sleep(max(0.0, self._began_us / 1e6 + at_s - now_us() / 1e6))

    async def _again(self, every_s: float, step: Callable[[], Awaitable[None]]) -> None:
        while not self.is_over:
            await asyncio.sleep(self._draw.expovariate(1 / every_s))
            await step()

    async def _meet_workers(self) -> None:
        while not self.is_over:
            with contextlib.suppress(LostError):
                await self._wire.meet()
            await asyncio.sleep(0.3)

    # --- reads ------------------------------------------------------------------------------------

    async def _read_any(self) -> None:
        await self.read(self._draw.randrange(GROUPS), self._draw.choice(VIEWS))

    async def read(self, group: int, view: str, *, worker: int | None = None) -> None:
        path = f"/{self._mode}/{group}/{view}"
        self.counts.asked["reads"] += 1
        try:
            answer = await self._wire.ask("GET", path, self._pauses(), worker=worker)
        except LostError as error:
            self._note_lost("reads", error)
            return
        if answer.status != 200:
            self._note_fault(answer, path)
            return
        self.counts.hits[view.partition("/")[0]] += answer.is_hit
        self.history.reads.append(
            Read(
                _seen(group, view, json.loads(answer.body)["rows"]),
                answer.begun_us, answer.ended_us, is_snapshot=view in SNAPSHOTS,
                what=f"GET {path}", by=str(answer.worker), is_hit=answer.is_hit,
            )
        )  # fmt: skip

    # --- writes -----------------------------------------------------------------------------------

    async def _write_any(self) -> None:
        turn = int((now_us() - self._began_us) / 1e6 / TURN_S)
        group = turn % GROUPS if self._draw.random() < 0.8 else self._draw.randrange(GROUPS)
        [how] = self._draw.choices(list(HOWS), list(HOWS.values()))
        await self.write(group, how, self._draw.randrange(BOOKS))

    async def write(
        self, group: int, how: str, n: int, *headers: str, worker: int | None = None
    ) -> None:
        op = next(ops)
        path = f"/{self._mode}/{group}/{how}/{n}?op={op}"
        self.counts.asked["writes"] += 1
        begun_us = now_us()
        try:
            answer = await self._wire.ask("POST", path, [*self._pauses(), *headers], worker=worker)
        except LostError as error:
            self._note_lost("writes", error)
            answer = None
        kinds = WRITTEN.get(how, "b")
        changes = tuple(Change(f"{group}{kind}{n}", None, how != "away") for kind in kinds)
        outcome = "unknown"
        if answer is not None and answer.status == 200:
            outcome, told = "ok", json.loads(answer.body)
            changes = tuple(Change(*one) for one in told["wrote"])
            for key, version, op_before in told["replaced"]:
                self.history.learned[op_before, key] = version
            self.counts.written[how] += 1
        elif answer is not None and answer.status == 409:
            outcome = "failed"
        elif answer is not None:
            self._note_fault(answer, path)
        ended_us = now_us() if answer is None else answer.ended_us
        by = "" if answer is None else str(answer.worker)
        self.history.writes.append(
            Write(op, changes, begun_us, ended_us, outcome, what=f"POST {path}", by=by)
        )
        if outcome == "ok":
            self._follow(group, kinds)

    def _follow(self, group: int, kinds: str) -> None:
        """Each worker is asked at once for what has become old."""
        views = self._draw.sample(ROWS_OF["b" if "b" in kinds else "l"], 2)
        workers = self._wire.workers
        self._draw.shuffle(workers)
        for number, worker in enumerate(workers[: self._pace.followers]):
            reading = asyncio.create_task(self.read(group, views[number % 2], worker=worker))
            self._followers.add(reading)
            reading.add_done_callback(self._followers.discard)

    # --- both -------------------------------------------------------------------------------------

    def _pauses(self) -> list[str]:
        if self._draw.random() < self._pace.paused_share:
            return [f"x-pause: {self._pace.pause_ms}"]
        return []

    def _note_lost(self, what: str, error: LostError) -> None:
        self.counts.lost[what] += 1
        self.counts.losses.append(f"{now_us() / 1e6:.3f} {error}")
        self.on_loss()

    def _note_fault(self, answer: Answer, path: str) -> None:
        self.counts.faults.append(
            f"{answer.status} {path} by {answer.worker}: {answer.body[:200]!r}"
        )


def _seen(group: int, view: str, rows: list[tuple[str, int, int]]) -> tuple[Seen, ...]:
    """The rows, and those books that are not among them."""
    shown = {key: Seen(key, version, op) for key, version, op in rows}
    wanted = [view.partition("/")[2]] if view.startswith("book/") else range(BOOKS)
    for n in wanted:
        key = f"{group}b{n}"
        shown.setdefault(key, Seen(key, None, None))
    return tuple(shown.values())
