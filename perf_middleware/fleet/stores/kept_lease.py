"""The lease of this process: renewed in the background, and what others ask meanwhile answered."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from perf_middleware.errors import StoreRefusedError, StoreUnavailableError
from perf_middleware.fleet.hearing import QUESTIONS_MAX, RENEWALS, Listener

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from perf_middleware.clock import Clock
    from perf_middleware.fleet.announcing import Overdue
    from perf_middleware.fleet.drivers.port import Link
    from perf_middleware.fleet.hearing import Question
    from perf_middleware.fleet.stores.listeners import Listeners
    from perf_middleware.fleet.stores.messages import Messages

AWAY = (StoreUnavailableError, StoreRefusedError)


class KeptLease:
    """`on_change(until_us)` is told how long the lease lasts, 0 where there is none any more.

    `purge` does what announcements of others name that are overdue.
    """

    def __init__(
        self,
        listeners: Listeners,
        link: Callable[[], Link],
        spaces: Callable[[], Iterable[Messages]],
        *,
        lease_s: float,
        clock: Clock,
        on_change: Callable[[int], None],
        purge: Callable[[Overdue], Awaitable[None]],
    ) -> None:
        self._listeners = listeners
        self._link = link
        self._spaces = spaces
        self._lease_s = lease_s
        self._clock = clock
        self._on_change = on_change
        self._purge = purge
        self.purges = False
        """Whether there is something here that an announcement may name."""
        self._listener = Listener(lease_us=round(lease_s * 1e6))
        self._answers: deque[Question] = deque(maxlen=QUESTIONS_MAX)
        self._has_answers: asyncio.Event | None = None
        self._is_due: asyncio.Event | None = None
        self._has_left = False
        self.is_wanted = False

    @property
    def is_valid(self) -> bool:
        return self._listener.until_us > self._clock()

    # --- what comes -----------------------------------------------------------------------------

    def begin(self) -> None:
        """The app has started, perhaps again."""
        self._has_left = False

    def renew_soon(self) -> None:
        """There is a connection."""
        if self._is_due is not None:
            self._is_due.set()

    def ask(self, question: Question) -> None:
        """Answer it as soon as what it names is done."""
        if self.is_wanted and not self._has_left:
            self._listener.ask(question)
            self.step()

    def note(self) -> None:
        """Something was heard, or done."""
        if self._listener.waits:
            self.step()

    def lose(self) -> None:
        """The connection: nothing is heard from here on."""
        self._listener.lose()
        self._answers.clear()
        self._on_change(0)

    def step(self) -> None:
        heard = {name: count for space in self._spaces() for name, count in space.heard()}
        is_done = all(space.is_done() for space in self._spaces())
        answered = self._listener.step(heard, is_done=is_done)
        if answered is None:
            self._link().give_up("what was told is not what was heard")
            return
        self._on_change(self._listener.until_us)
        if answered:
            self._answers.extend(answered)
            if self._has_answers is not None:
                self._has_answers.set()

    # --- in the background ----------------------------------------------------------------------

    async def run(self) -> None:
        """Renew it, until cancelled."""
        is_due = self._is_due = asyncio.Event()
        while True:
            is_due.clear()
            if self._link().is_up and not self._has_left:
                with suppress(*AWAY):
                    await self._renew()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._lease_s / RENEWALS):
                    await is_due.wait()

    async def _renew(self) -> None:
        await self._listeners.take_part()
        lease_ms = round(self._lease_s * 1_000)
        while True:
            name, asked_us = self._listeners.name, self._clock()
            told = await self._listeners.renew(lease_ms=lease_ms, purges=self.purges)
            if not isinstance(told, list):
                break
            await self._purge(told)
        if name == self._listeners.name and not self._has_left:
            self._listener.renewed(asked_us, told)
            self.step()

    async def run_answers(self) -> None:
        """Tell who has asked, until cancelled."""
        has_answers = self._has_answers = asyncio.Event()
        while True:
            while self._answers:
                some = list(self._answers)
                self._answers.clear()
                # What is not told for want of a connection, the end of the lease tells.
                for told in await asyncio.gather(
                    *map(self._listeners.answer, some), return_exceptions=True
                ):
                    if isinstance(told, BaseException) and not isinstance(told, AWAY):
                        raise told
            has_answers.clear()
            await has_answers.wait()

    async def leave(self) -> None:
        """Nobody has to wait for this process, which answers nothing out of memory from here on."""
        self._has_left = True
        self.lose()
        if self._link().is_up:
            with suppress(*AWAY):
                await self._listeners.leave()
