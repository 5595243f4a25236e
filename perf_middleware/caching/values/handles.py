"""What a decorated function is to a type checker: itself, with actions beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from perf_middleware.caching.values.figures import FunctionStats

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")


class CachedFunction(Protocol[P, R_co]):
    """A cached function that is not async, or a method of that kind."""

    cached_as: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> CachedFunction[P, R_co]: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> CachedFunction[Q, R]: ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget what is kept for these arguments: whether there was something."""

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run it now, and keep what it returns."""

    def bypass(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run it, and neither look at nor change what is kept."""

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str | None:
        """The key of such a call; None: it is not cached."""

    def clear(self) -> int:
        """Forget all that is kept of it: how many values."""

    def stats(self) -> FunctionStats:
        """What became of its calls."""


class CachedCoroutine(Protocol[P, R_co]):
    """A cached async function, or a method of that kind."""

    cached_as: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]: ...

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> CachedCoroutine[P, R_co]: ...
    @overload
    def __get__(
        self: CachedCoroutine[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> CachedCoroutine[Q, R]: ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, bool]:
        """Forget what is kept for these arguments: whether there was something."""

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Run it now, and keep what it returns."""

    def bypass(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Run it, and neither look at nor change what is kept."""

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str | None:
        """The key of such a call; None: it is not cached."""

    def clear(self) -> Coroutine[Any, Any, int]:
        """Forget all that is kept of it: how many values."""

    def stats(self) -> FunctionStats:
        """What became of its calls."""


class CachedValue(Protocol[R_co]):
    """A cached property; of an async getter each access gives an awaitable."""

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Any: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> R_co: ...

    def __delete__(self, instance: object) -> None: ...


class CachedDecorator(Protocol):
    """What `memo.cached(...)` returns."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits counts
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> CachedCoroutine[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...
    @overload
    def __call__(self, function: Any, /) -> Any: ...
