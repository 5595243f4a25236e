"""`@batched`: single look-ups, asked in the same moment, become one bulk call.

await load(1)  ---+
await load(2)  ---+--->  load's own function([1, 2])  --->  each gets its own
await load(1)  ---+
"""

from __future__ import annotations

import functools
import inspect
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, cast, overload

from perf_middleware.clock import monotonic_us
from perf_middleware.tasks.batching.figures import BatchCounts, BatchReading
from perf_middleware.tasks.batching.options import MISSING, BatchOptions, Sharing
from perf_middleware.tasks.batching.runtime import contexts
from perf_middleware.tasks.batching.runtime.batches import PENDING, Entry, LoopBatches
from perf_middleware.tasks.batching.runtime.scopes import current_scope
from perf_middleware.tasks.drivers.loops import PerLoop
from perf_middleware.tasks.failures import Failed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
    from contextvars import Context

    from perf_middleware.clock import Clock
    from perf_middleware.tasks.batching.runtime.scopes import BatchScope, Remembered
    from perf_middleware.tasks.drivers.loops import Waiter

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")
Owner = TypeVar("Owner")

SharedContext: TypeAlias = (
    "Literal['same', 'empty', 'first'] | ContextVar[Any] | Sequence[ContextVar[Any]]"
)
Results: TypeAlias = "Mapping[K, V | Exception | Failed] | Sequence[V | Exception | Failed]"
BulkFunction: TypeAlias = "Callable[[list[K]], Awaitable[Results[K, V]]]"
BulkMethod: TypeAlias = "Callable[[Owner, list[K]], Awaitable[Results[K, V]]]"


class Core:
    """What a batched function and all its bound forms share."""

    def __init__(
        self,
        function: Callable[..., Awaitable[Any]],
        *,
        options: BatchOptions,
        group_of: Callable[[], tuple[Any, Any]],
        clock: Clock,
    ) -> None:
        self.function = function
        self.options = options
        self.group_of = group_of
        self.counts = BatchCounts()
        self.loops: PerLoop[LoopBatches] = PerLoop(
            lambda loop: LoopBatches(loop, options=options, counts=self.counts, clock=clock),
            doing=options.name,
        )

    def reading(self) -> BatchReading:
        """The counts, and what waits and runs by now on all event loops."""
        states = self.loops.states()
        return BatchReading(
            name=self.options.name,
            waiting=sum(state.waiting for state in states),
            in_flight=sum(state.in_flight for state in states),
            counts=self.counts,
        )


class Batched(Generic[K, V]):
    """`await load(key)` is one look-up; many of the same moment are one call of `load`'s function.

    A method's bound form holds its object; nothing of an object is kept once its calls are over.
    """

    def __init__(self, core: Core, owner: Any = None, *, is_bound: bool = False) -> None:
        self._core = core
        self._owner = owner
        self._call: Callable[[list[Any]], Awaitable[Any]] = (
            functools.partial(core.function, owner) if is_bound else core.function
        )
        self.__doc__ = core.function.__doc__
        self.__name__ = getattr(core.function, "__name__", core.options.name)

    async def __call__(self, key: K) -> V:
        """The value of `key`.

        Raises what the bulk function gave or raised for it, MissingResultError, BatchTimeoutError,
        BatchLineFullError, BatchResultError; RuntimeError outside of asyncio and trio; TypeError
        for a key without a hash.
        """
        core = self._core
        core.counts.asks += 1
        here = core.loops.here()
        if core.options.is_remembered and (scope := current_scope()) is not None:
            entry, waiter = self._ask_in(scope, key, here)
            if waiter is None:
                return cast("V", entry.outcome)
        else:
            entry, waiter = self._ask(key, here)
        try:
            await waiter
        except BaseException:
            here.leave(entry, waiter)
            raise
        try:
            return cast("V", entry.result())
        finally:
            del entry  # no cycle of an error, its traceback and this frame

    @overload
    async def many(self, keys: Iterable[K]) -> list[V]: ...
    @overload
    async def many(
        self, keys: Iterable[K], *, return_failures: Literal[True]
    ) -> list[V | Failed]: ...
    async def many(
        self, keys: Iterable[K], *, return_failures: bool = False
    ) -> list[V] | list[V | Failed]:
        """The values of `keys`, in their order.

        Raises the first error in that order, or gives Failed in the place of each.  What waits for
        other keys of the same call goes on.
        """
        core = self._core
        here = core.loops.here()
        scope = current_scope() if core.options.is_remembered else None
        asked: list[tuple[Entry, Waiter | None]] = []
        try:
            for key in keys:
                core.counts.asks += 1
                asked.append(
                    self._ask(key, here) if scope is None else self._ask_in(scope, key, here)
                )
            for waiting in [waiter for _, waiter in asked if waiter is not None]:
                await waiting
        except BaseException:
            for entry, waiter in asked:
                if waiter is not None:
                    here.leave(entry, waiter)
            raise
        if not return_failures:
            values: list[V] = []
            try:
                asked.reverse()
                while asked:
                    values.append(asked.pop()[0].result())
                return values
            finally:
                asked.clear()  # no cycle of an error, its traceback and this frame
        return [
            Failed(entry.outcome.error, index)
            if isinstance(entry.outcome, Failed)
            else entry.outcome
            for index, (entry, _) in enumerate(asked)
        ]

    def prime(self, key: K, value: V) -> None:
        """Have `key` give `value` to the end of this request, without a call.

        Nothing happens outside of a request, or without `cache="request"`.
        """
        remembered = self._remembered()
        if remembered is not None:
            group, context = self._core.group_of()
            remembered.forget(key)
            remembered.keep(key, Entry(key, None, value), group=group, context=context)

    def clear(self, *keys: K) -> None:
        """Have this request ask anew for `keys`; for everything where none is named."""
        remembered = self._remembered()
        if remembered is not None:
            remembered.forget(*keys)

    def reading(self) -> BatchReading:
        """Its figures; of a method those of all objects together."""
        return self._core.reading()

    def _remembered(self) -> Remembered | None:
        options = self._core.options
        if not options.is_remembered:
            return None
        scope = current_scope()
        return None if scope is None else scope.of(self._core, self._owner, options.remembered_max)

    def _ask(
        self, key: K, here: LoopBatches, shared: tuple[Any, Context] | None = None
    ) -> tuple[Entry, Waiter]:
        group, context = shared or self._core.group_of()
        return here.ask(key, call=self._call, group=(id(self._owner), group), context=context)

    def _ask_in(self, scope: BatchScope, key: K, here: LoopBatches) -> tuple[Entry, Waiter | None]:
        """By what the request has asked before; no waiter where the answer is there."""
        core = self._core
        remembered = scope.of(core, self._owner, core.options.remembered_max)
        group, context = shared = core.group_of()
        entry = remembered.get(key, group)
        if entry is not None:
            if entry.outcome is not PENDING and entry.outcome.__class__ is not Failed:
                core.counts.remembered += 1
                return entry, None
            joined = here.join(entry)
            if joined is not None:
                core.counts.remembered += 1
                return entry, joined
        entry, waiter = self._ask(key, here, shared)
        # A failure is not remembered: who asks again may have more luck.
        remembered.keep(key, entry, group=group, context=context)
        return entry, waiter


class BatchedMethod(Generic[Owner, K, V]):
    """A batched function in a class: `await service.load(key)`; no call mixes two objects."""

    def __init__(self, core: Core, *, of_class: bool) -> None:
        self._core = core
        self._of_class = of_class
        self.__doc__ = core.function.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> BatchedMethod[Owner, K, V]: ...
    @overload
    def __get__(self, owner: Owner, kind: type) -> Batched[K, V]: ...
    def __get__(self, owner: Any, kind: type) -> Batched[K, V] | BatchedMethod[Owner, K, V]:
        if self._of_class:
            return Batched(self._core, kind, is_bound=True)
        return self if owner is None else Batched(self._core, owner, is_bound=True)

    def reading(self) -> BatchReading:
        """Its figures, of all objects together."""
        return self._core.reading()

    def __call__(self, *_: Any) -> Any:
        raise TypeError(
            f"{self._core.options.name} has two arguments, so it is a method: call it on an object "
            "(for a class method, @batched stands above @classmethod); a plain function takes the "
            "list of keys alone"
        )


class Decorator:
    """What `batched(...)` gives."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    @overload
    def __call__(self, function: BulkFunction[K, V], /) -> Batched[K, V]: ...
    @overload
    def __call__(self, function: BulkMethod[Owner, K, V], /) -> BatchedMethod[Owner, K, V]: ...
    def __call__(self, function: Any, /) -> Any:
        return self._make(function)


@overload
def batched(function: BulkFunction[K, V], /) -> Batched[K, V]: ...
@overload
def batched(function: BulkMethod[Owner, K, V], /) -> BatchedMethod[Owner, K, V]: ...
@overload
def batched(
    *,
    size_max: int = 100,
    wait_s: float = 0.002,
    timeout_s: float | None = 30.0,
    in_flight_max: int = 8,
    waiting_max: int = 100_000,
    default: Any = MISSING,
    context: SharedContext = "same",
    cache: Literal["request"] | None = None,
    remembered_max: int = 10_000,
    name: str | None = None,
    clock: Clock = monotonic_us,
) -> Decorator: ...
def batched(
    function: Any = None,
    /,
    *,
    size_max: int = 100,
    wait_s: float = 0.002,
    timeout_s: float | None = 30.0,
    in_flight_max: int = 8,
    waiting_max: int = 100_000,
    default: Any = MISSING,
    context: SharedContext = "same",
    cache: Literal["request"] | None = None,
    remembered_max: int = 10_000,
    name: str | None = None,
    clock: Clock = monotonic_us,
) -> Any:
    """Turn an async function of a list of keys into one of a single key.

    The function gives a list, in the order of the keys, or a dict by key.  What is asked within
    `wait_s` goes into one call, `size_max` keys go at once; 0 s is the next turn of the event loop.
    docs/batching.md tells every argument.  Bounds hold for each event loop.

    Raises TypeError for what is no async function of a list, ValueError for a wrong argument.
    """
    sharing, group_of = _sharing(context)
    if cache not in (None, "request"):
        raise ValueError(f'cache is "request" or None, not {cache!r}')

    def make(target: Any) -> Any:
        inner = getattr(target, "__func__", target)  # of a classmethod or staticmethod
        named = getattr(inner, "__qualname__", None)
        called = name or (f"{inner.__module__}.{named}" if named else f"{inner!r:.100}")
        takes = _keys_and_owner(inner, called)
        options = BatchOptions(
            name=called, size_max=size_max, wait_s=wait_s, timeout_s=timeout_s,
            in_flight_max=in_flight_max, waiting_max=waiting_max, default=default, sharing=sharing,
            is_remembered=cache == "request", remembered_max=remembered_max,
        )  # fmt: skip
        core = Core(inner, options=options, group_of=group_of, clock=clock)
        if takes == 1 and not isinstance(target, classmethod):
            made = Batched[Any, Any](core)
            return staticmethod(made) if isinstance(target, staticmethod) else made
        return BatchedMethod[Any, Any, Any](core, of_class=isinstance(target, classmethod))

    return Decorator(make) if function is None else make(function)


def _sharing(context: SharedContext) -> tuple[Sharing, Callable[[], tuple[Any, Any]]]:
    if isinstance(context, ContextVar):
        return "named", contexts.named((context,))
    if isinstance(context, str):
        simple = {"same": contexts.same, "empty": contexts.empty, "first": contexts.first}
        if context not in simple:
            raise ValueError(f'context is "same", "empty", "first" or ContextVars: {context!r}')
        return context, simple[context]
    variables = tuple(context)
    if not all(isinstance(variable, ContextVar) for variable in variables):
        raise ValueError("context names ContextVars")
    return "named", contexts.named(variables)


def _keys_and_owner(function: Any, called: str) -> int:
    """How many arguments it needs: 1 the keys, 2 for a method.  Raises TypeError."""
    if not inspect.iscoroutinefunction(function):
        raise TypeError(
            f"@batched stands on an async function of a list of keys, and {called} is none: "
            "for sync code, let an async function call it by to_thread"
        )
    needed = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(needed) not in (1, 2) or any(each.kind not in positional for each in needed):
        raise TypeError(
            f"{called} must need one argument, the list of keys (a method: self and it)"
        )
    return len(needed)
