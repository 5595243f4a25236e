"""`allow_repeats`: code in which a statement may repeat."""

from __future__ import annotations

from contextvars import ContextVar, Token
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

ALLOWED: Final[ContextVar[bool]] = ContextVar("perf_middleware.allow_repeats", default=False)


class allow_repeats:  # noqa: N801 - used as a statement, like contextlib's
    """Within it repeated statements are no finding; they are timed and counted as ever.

        with allow_repeats():
            ...

        @allow_repeats()
        async def endpoint(): ...

    As a decorator it goes below the route's own.  Raises TypeError for generators, whose body runs
    in pieces between the code of others.
    """

    def __init__(self) -> None:
        self._tokens: list[Token[bool]] = []

    def __enter__(self) -> None:
        self._tokens.append(ALLOWED.set(True))

    def __exit__(self, *_: object) -> None:
        ALLOWED.reset(self._tokens.pop())

    def __call__(self, function: F) -> F:
        if isgeneratorfunction(function) or isasyncgenfunction(function):
            raise TypeError(
                f"@allow_repeats() stands on no generator, as {function.__qualname__} is: use "
                "`with allow_repeats():` around its statements"
            )
        if iscoroutinefunction(function):

            @wraps(function)
            async def allowed_coroutine(*args: Any, **kwargs: Any) -> Any:
                with allow_repeats():  # one of its own: calls overlap
                    return await function(*args, **kwargs)

            return allowed_coroutine  # type: ignore[return-value]

        @wraps(function)
        def allowed(*args: Any, **kwargs: Any) -> Any:
            with allow_repeats():
                return function(*args, **kwargs)

        return allowed  # type: ignore[return-value]
