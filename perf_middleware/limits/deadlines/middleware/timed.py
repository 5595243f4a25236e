"""One request that has a deadline: its answer as it leaves, and what is left to do behind it.

app in time         its answer leaves, the timer is stopped: no task was made, nothing cancelled
timer first         504 at once, by a task of its own; the app is cancelled and cleans up
... response begun  (covers="total") the app is cancelled, and the server cuts the connection
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio.lowlevel

from perf_middleware.errors import DeadlineExceededError
from perf_middleware.limits.deadlines.runtime import Held
from perf_middleware.problem import send_problem

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from perf_middleware.asgi import Message, Scope, Send
    from perf_middleware.limits.deadlines.choices import Covers
    from perf_middleware.limits.deadlines.drivers.asyncio_work import AsyncioWork
    from perf_middleware.limits.deadlines.drivers.lines import Line
    from perf_middleware.limits.deadlines.drivers.trio_work import TrioWork
    from perf_middleware.limits.deadlines.runtime import Deadlines

TITLE: Final = "Gateway Timeout"
DETAIL: Final = "The request could not be answered in the time that it has."
START: Final = "http.response.start"


class TimedRequest(Held):
    """The responder of one request; told by its line or its watcher when its time has come."""

    __slots__ = (
        "_has_begun", "_has_trailers", "_is_total", "_line", "_scope", "_send", "expired_in",
        "work",
    )  # fmt: skip

    def __init__(
        self,
        at_us: int | None,
        deadlines: Deadlines,
        scope: Scope,
        send: Send,
        work: AsyncioWork | TrioWork,
        line: Line | TrioWork,
        *,
        is_total: bool,
    ) -> None:
        self.at_us = at_us
        self.deadlines = deadlines
        self.expired_in: Covers | None = None
        self.work = work
        self._line: Line | TrioWork | None = line
        self._scope = scope
        self._send = send
        self._is_total = is_total
        self._has_begun = False
        self._has_trailers = False

    def send(self, message: Message) -> Awaitable[None]:
        """Pass on what the app answers, until its time is over."""
        if self.expired_in is not None:
            return self._drop()
        if message["type"] == START:
            self._has_begun = True
            if not self._is_total:
                self.end()
            else:
                self._has_trailers = message.get("trailers", False)
        elif self._is_total and self._is_last(message):
            self.end()
        return self._send(message)

    def end(self) -> None:
        """Nothing is left that has a deadline."""
        self.at_us = None
        line, self._line = self._line, None
        if line is not None:
            line.leave(self)

    def expire(self) -> None:
        """Its time has come."""
        if self._line is None:
            return  # it was over already: trio's watcher had been woken
        figures = self.deadlines.figures
        phase: Covers = "total" if self._has_begun else "head"
        if self.deadlines.dry_run:
            figures.dry_timeouts[phase] += 1
            return
        figures.timeouts[phase] += 1
        figures.running_on += 1
        self.expired_in = phase
        self.work.expire(None if self._has_begun else self._answer)

    async def settle(self, error: BaseException | None) -> None:
        """The app has come to its end after its time, with this error or none.

        Raises what is not ours to keep: its own errors, cancellation from outside, and
        DeadlineExceededError where the server is to cut a response that has begun.
        """
        if self.expired_in is None:
            if error is not None:
                await self._give_up(error)
            return
        self.deadlines.figures.running_on -= 1
        is_ours = self.work.take_back()
        if isinstance(error, anyio.get_cancelled_exc_class()) and is_ours:
            error = None
        elif error is not None and not isinstance(error, Exception | BaseExceptionGroup):
            self.work.abandon()  # cancelled from outside, or at the process's end: nothing waits
            raise error
        try:
            await self.work.answered()
        except Exception:
            if error is None or is_out_of_time(error):
                raise
        if error is not None and not is_out_of_time(error):
            raise error
        if self.expired_in == "total":
            raise DeadlineExceededError

    async def _give_up(self, error: BaseException) -> None:
        """The app itself has seen that there is no time: `require()`, `scope()`."""
        if self._has_begun or not is_out_of_time(error):
            raise error
        self.deadlines.figures.timeouts["head"] += 1
        await self._answer()

    async def _answer(self) -> None:
        await send_problem(self._scope, self._send, 504, DETAIL, title=TITLE)

    async def _drop(self) -> None:
        """What comes after the time goes nowhere, and who sends it is cancelled here at last."""
        self.work.cancel()
        await anyio.lowlevel.checkpoint()

    def _is_last(self, message: Message) -> bool:
        kind = message["type"]
        if kind == "http.response.body":
            return not message.get("more_body", False) and not self._has_trailers
        if kind == "http.response.trailers":
            return not message.get("more_trailers", False)
        return bool(kind == "http.response.pathsend")


def is_out_of_time(error: BaseException) -> bool:
    """Whether it is a DeadlineExceededError, or a group of nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(DeadlineExceededError)[1] is None
    return isinstance(error, DeadlineExceededError)
