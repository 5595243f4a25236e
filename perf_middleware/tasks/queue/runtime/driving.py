"""A coroutine, driven in a context of its own by the task that awaits it.

asyncio gives a context to a task, and a task to each job would double what a job costs.  So a
long-lived worker steps the job's coroutine by hand: what it yields (the future that it waits for)
goes up to the worker's own task, what comes down (a value, an error, a cancellation) goes into it.

    task of the worker  <- future ---  Rest  <- future ---  coroutine of the job, in its context
                        --- throw ->         --- throw ->
"""

from __future__ import annotations

from types import CoroutineType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from contextvars import Context


def begin(
    context: Context, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Coroutine[Any, Any, Any]:
    """The coroutine of `call`, made in `context`, not begun."""
    made = context.run(call, *args, **kwargs)
    return made if type(made) is CoroutineType else _awaited(made)


class Rest:
    """What is left of a coroutine that has yielded `waited` in its first step."""

    __slots__ = ("_context", "_coroutine", "_waited")

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], context: Context, waited: object
    ) -> None:
        self._coroutine = coroutine
        self._context = context
        self._waited = waited

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, context, waited = self._coroutine, self._context, self._waited
        try:
            while True:
                try:
                    sent = yield waited
                except GeneratorExit:
                    context.run(coroutine.close)
                    raise
                except BaseException as exc:  # noqa: BLE001 - whatever it is, it is the job's
                    waited = context.run(coroutine.throw, exc)
                else:
                    waited = context.run(coroutine.send, sent)
        except StopIteration as end:
            return end.value


async def _awaited(made: Awaitable[Any]) -> Any:
    return await made
