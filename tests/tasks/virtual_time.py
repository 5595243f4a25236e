"""An event loop whose time passes only where everybody waits: no test waits, none is too slow."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class StuckError(AssertionError):
    """Nothing is ready, no timer is set: whoever waits would wait for ever."""


class _Selector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1_000.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise StuckError
        self.now_s += max(timeout, 0.0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` moves by what `select` would have waited."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result of `main()` in virtual time.  Raises StuckError."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


def clock_us() -> int:
    """The running loop's time, as a queue wants it."""
    return round(asyncio.get_running_loop().time() * 1_000_000)
