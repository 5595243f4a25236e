"""`@memo.cached(...)`: the function that stands in for the decorated one.

A function stays a function (async or not), so that frameworks see what they saw before, and has
`invalidate`, `refresh`, `bypass`, `clear`, `key` and `stats` as attributes.  A method becomes a
descriptor whose bound form has the same, bound as well: `service.load.invalidate(5)`.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.caching.values.decorators.calls import AsyncCalls, SyncCalls
from perf_middleware.caching.values.signatures import Arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from perf_middleware.caching.values.figures import FunctionStats
    from perf_middleware.caching.values.kept import Kept
    from perf_middleware.caching.values.options import CallOptions
    from perf_middleware.caching.values.runtime.core import Core

ACTIONS: Final = ("invalidate", "refresh", "bypass", "key", "clear", "stats")


def cached_form(
    function: Any,
    cache: Core,
    *,
    options: CallOptions,
    key: str | Callable[..., Any] | None,
    tags: Sequence[str],
    exclude: Sequence[str],
    namespace: str | None,
    name: str | None,
) -> Any:
    """What stands in for `function`; raises TypeError for what cannot be cached."""

    def form(inner: Callable[..., Any]) -> Any:
        return _made(
            inner, cache, options=options, key=key, tags=tags, exclude=exclude,
            name=cache.claim_name(inner, namespace=namespace, name=name),
        )  # fmt: skip

    if isinstance(function, staticmethod):
        return staticmethod(form(function.__func__))
    if isinstance(function, classmethod):
        return CachedMethod(form(function.__func__), of_class=True)
    made = form(function)
    return CachedMethod(made) if is_method(function) else made


def is_method(function: Any) -> bool:
    """Whether it was defined in a class, to be called on an object or on the class."""
    qualname = getattr(function, "__qualname__", "")
    home = qualname.rpartition(".")[0]
    if not home or home.endswith("<locals>"):
        return False
    first = next(iter(inspect.signature(function).parameters), None)
    return first in ("self", "cls")


def require_function(function: Any, *, what: str) -> bool:
    """Whether it is a coroutine function; raises TypeError for what is no function."""
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(
            f"@{what} cannot stand on the generator {_called(function)}: what it yields is gone "
            "once it is read; return a list"
        )
    if isinstance(function, type) or not callable(function):
        raise TypeError(f"@{what} stands on a function, not on {function!r}")
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object whose call is async
    )


def _made(
    function: Callable[..., Any],
    cache: Core,
    *,
    options: CallOptions,
    key: str | Callable[..., Any] | None,
    tags: Sequence[str],
    exclude: Sequence[str],
    name: str,
) -> Any:
    is_async = require_function(function, what="cached")
    arguments = Arguments(function, name=name, texts=cache.texts)
    key_of: Callable[..., str | None]
    if key is None:
        key_of = arguments.key_by_arguments(exclude)
    elif exclude:
        raise ValueError(f"{name}: either key or exclude says what the key is made of")
    elif isinstance(key, str):
        key_of = arguments.key_by_template(key)
    else:
        key_of = arguments.key_by_function(key)
    kind = AsyncCalls if is_async else SyncCalls
    calls = kind(
        cache,
        function,
        name=name,
        key_of=key_of,
        tags_of=arguments.tags(tags),
        options=options,
        counts=cache.figures.of(name),
    )
    cache.classes.learn(function)
    made = _async_form(calls) if isinstance(calls, AsyncCalls) else _sync_form(calls)
    functools.update_wrapper(made, function)
    made.invalidate = calls.invalidate  # type: ignore[attr-defined]
    made.refresh = calls.refresh  # type: ignore[attr-defined]
    made.bypass = calls.bypass  # type: ignore[attr-defined]
    made.clear = calls.clear  # type: ignore[attr-defined]
    made.stats = calls.counts.stats  # type: ignore[attr-defined]
    made.key = key_of  # type: ignore[attr-defined]
    made.cached_as = name  # type: ignore[attr-defined]
    return made


# The two forms are the hot path, written out twice: a call less in each is a tenth of a hit.


def _async_form(calls: AsyncCalls) -> Callable[..., Any]:
    cache, key_of, counts, answer = calls.cache, calls.key_of, calls.counts, calls.answer
    look, note_read, clock = _memory_of(cache)

    async def cached(*args: Any, **kwargs: Any) -> Any:
        key = key_of(*args, **kwargs)
        kept = look(key)
        if kept is not None and clock() < kept.early_from_us:
            note_read(key)
            thaw = kept.thaw
            value = kept.held if thaw is None else thaw(kept.held)
            counts.hits += 1
            counts.saved_us += kept.took_us
            return value
        return await answer(key, kept, args, kwargs)

    return cached


def _sync_form(calls: SyncCalls) -> Callable[..., Any]:
    cache, key_of, counts, answer = calls.cache, calls.key_of, calls.counts, calls.answer
    look, note_read, clock = _memory_of(cache)

    def cached(*args: Any, **kwargs: Any) -> Any:
        key = key_of(*args, **kwargs)
        kept = look(key)
        if kept is not None and clock() < kept.early_from_us:
            note_read(key)
            thaw = kept.thaw
            value = kept.held if thaw is None else thaw(kept.held)
            counts.hits += 1
            counts.saved_us += kept.took_us
            return value
        return answer(key, kept, args, kwargs)

    return cached


def _memory_of(
    cache: Core,
) -> tuple[Callable[[Any], Kept | None], Callable[[Any], None], Callable[[], int]]:
    memory = cache.memory
    if memory is None:
        return _nothing, _nothing, cache.clock
    return memory.look, memory.note_read, cache.clock


def _nothing(_key: object) -> None:
    return None


class CachedMethod(staticmethod):  # type: ignore[type-arg]
    """A cached method of a class: bound to an object (or the class), its actions are too.

    A staticmethod only by descent: classes that look at each of their attributes, such as pydantic
    models, know that one and leave it alone.
    """

    def __new__(cls, function: Callable[..., Any], **_: bool) -> Self:
        # From Python 3.15 on staticmethod has one of its own, which takes no keywords.
        return super().__new__(cls, function)  # type: ignore[call-arg]

    def __init__(self, function: Callable[..., Any], *, of_class: bool = False) -> None:
        super().__init__(function)
        self._of_class = of_class
        for action in (*ACTIONS, "cached_as"):
            setattr(self, action, getattr(function, action))

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if self._of_class:
            return BoundMethod(self.__func__, owner if owner is not None else type(instance))
        if instance is None:
            return self.__func__
        return BoundMethod(self.__func__, instance)


class BoundMethod(functools.partial):  # type: ignore[type-arg]
    """A cached method with its first argument: for `inspect` still a coroutine function, or not."""

    def invalidate(self, *args: Any, **kwargs: Any) -> Any:
        """Forget what is kept for these arguments."""
        return self.func.invalidate(*self.args, *args, **kwargs)  # type: ignore[attr-defined]

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Run the method now and keep what it returns."""
        return self.func.refresh(*self.args, *args, **kwargs)  # type: ignore[attr-defined]

    def bypass(self, *args: Any, **kwargs: Any) -> Any:
        """Run the method, and neither look at nor change what is kept."""
        return self.func.bypass(*self.args, *args, **kwargs)  # type: ignore[attr-defined]

    def key(self, *args: Any, **kwargs: Any) -> str | None:
        """The key of such a call."""
        key: str | None = self.func.key(*self.args, *args, **kwargs)  # type: ignore[attr-defined]
        return key

    def clear(self) -> Any:
        """Forget all that is kept of this method, of every object."""
        return self.func.clear()  # type: ignore[attr-defined]

    def stats(self) -> FunctionStats:
        """What became of its calls, on every object."""
        stats: FunctionStats = self.func.stats()  # type: ignore[attr-defined]
        return stats


def _called(function: Any) -> str:
    return getattr(function, "__qualname__", repr(function))
