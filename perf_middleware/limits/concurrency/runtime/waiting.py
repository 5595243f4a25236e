"""One who waits: until a permit comes, the line sheds it, or its client leaves.

Only those who wait are listened to, and on asyncio only once they have waited for LISTEN_AFTER_S,
or get a permit: under overload most are shed before, and would pay for a task.  What their client
sends meanwhile is kept, and the app gets it first; a call of `receive` that is open when the permit
comes is not cancelled, the app takes over what it brings.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

import anyio

from perf_middleware.limits.concurrency.line import GRANTED

if TYPE_CHECKING:
    from perf_middleware.asgi import Message, Receive
    from perf_middleware.clock import Clock
    from perf_middleware.limits.concurrency.line import Ticket
    from perf_middleware.limits.concurrency.runtime.gate import Gate

LISTEN_AFTER_S: Final = 0.005
"""A client that leaves is noticed so much later; the task and its end are half of a refusal."""
HELD_BYTES_MAX: Final = 64 * 1024
"""Of one waiter's body: what comes after that stays with the server, and so does a disconnect."""
HELD_MESSAGES_MAX: Final = 16


class Hearing:
    """Listens to the client of one ticket; `receive` is what the app gets for it."""

    __slots__ = (
        "_clock",
        "_error",
        "_gate",
        "_held",
        "_held_bytes",
        "_receive",
        "_task",
        "_ticket",
        "_timer",
        "has_left",
        "is_needed",
    )

    def __init__(self, receive: Receive, gate: Gate, ticket: Ticket, clock: Clock) -> None:
        self._receive = receive
        self._gate = gate
        self._ticket = ticket
        self._clock = clock
        self._held: deque[Message] = deque()
        self._held_bytes = 0
        self._error: Exception | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.has_left = False
        self.is_needed = True

    async def listen(self) -> None:
        """Until nobody needs to know any more, and the message after that."""
        ticket = self._ticket
        try:
            while self.is_needed:
                message = await self._receive()
                self._held.append(message)
                if message["type"] == "http.disconnect":
                    self.has_left = True
                    self._gate.leave(ticket, self._clock())
                    return
                self._held_bytes += len(message.get("body", b""))
                if self._held_bytes >= HELD_BYTES_MAX or len(self._held) >= HELD_MESSAGES_MAX:
                    return
        except Exception as error:  # noqa: BLE001 - the app's to see, when it asks
            self._error = error

    def start_later(self, loop: asyncio.AbstractEventLoop) -> None:
        """Listen in a task of its own, on asyncio, once the ticket has waited so long."""
        self._ticket.hear = self.start
        self._timer = loop.call_later(LISTEN_AFTER_S, self.start)

    def start(self) -> None:
        """Listen now; once."""
        self._ticket.hear = None
        self._stop_timer()
        loop = self._gate.loop
        if self._ticket.state <= GRANTED and loop is not None:
            self._task = loop.create_task(self.listen())

    def stop(self) -> None:
        """The wait is over: who does not listen yet need not begin."""
        self.is_needed = False
        self._ticket.hear = None
        self._stop_timer()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """The request is over."""
        self.stop()
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()

    async def receive(self) -> Message:
        """What was heard, and then what the server has."""
        task = self._task
        if not self._held and task is not None and not task.done():
            await asyncio.wait((task,))  # whoever cancels this call loses no message
        if self._held:
            return self._held.popleft()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return await self._receive()


async def wait_on_asyncio(ticket: Ticket, hearing: Hearing | None) -> None:
    """Returns when `ticket` waits no more; its place is free again when this is cancelled."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not future.done():
            future.set_result(None)

    ticket.wake = wake
    if hearing is None:
        await future
        return
    hearing.start_later(loop)
    await future
    hearing.stop()


async def wait_anywhere(gate: Gate, ticket: Ticket, hearing: Hearing | None, clock: Clock) -> None:
    """The same on anyio: each waiter looks after its own time, without a timer for all."""
    event = anyio.Event()
    ticket.wake = event.set
    async with anyio.create_task_group() as tasks:
        if hearing is not None:
            tasks.start_soon(hearing.listen)
        while not event.is_set():
            due_us = None if ticket.line is None else ticket.line.next_expiry_us()
            left_us = 0 if due_us is None else due_us - clock()
            with anyio.move_on_after(max(left_us, 1_000) / 1e6):
                await event.wait()
            gate.expire(clock())
        if hearing is not None:
            hearing.stop()
        tasks.cancel_scope.cancel()
