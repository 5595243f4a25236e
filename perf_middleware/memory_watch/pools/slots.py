"""A slot of a pool, and a ticket for the line of those who wait for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from perf_middleware.memory_watch.pools.figures import POOL_CLOSED

if TYPE_CHECKING:
    from collections.abc import Callable
    from weakref import ref

T = TypeVar("T")

IDLE: Final = 0
WORKING: Final = 1
LENT: Final = 2
GONE: Final = 3

READY: Final = 0
CHECK: Final = 1
REPLACE: Final = 2
MAKE: Final = 3

WAITING: Final = 0
GRANTED: Final = 1
LEFT: Final = 2
TURNED_AWAY: Final = 3


class Slot(Generic[T]):
    """The right to one object, and what is known of that; `todo` is what its taker does first.

    `since_us` is when it became idle, or was lent; `why` says why it is to be closed.
    """

    __slots__ = (
        "holder",
        "is_suspect",
        "key",
        "made_us",
        "since_us",
        "state",
        "thing",
        "todo",
        "uses",
        "weak",
        "why",
    )

    def __init__(self) -> None:
        self.state = WORKING
        self.todo = MAKE
        self.thing: T | None = None
        self.weak: ref[Any] | None = None
        self.key = 0
        self.made_us = 0
        self.since_us = 0
        self.uses = 0
        self.is_suspect = False
        self.holder: Any = None
        self.why = POOL_CLOSED


class Ticket(Generic[T]):
    """A place in the line; `wake` is called once, when it does not wait any more."""

    __slots__ = ("since_us", "slot", "state", "wake")

    def __init__(self, wake: Callable[[], object], since_us: int) -> None:
        self.state = WAITING
        self.slot: Slot[T] | None = None
        self.wake = wake
        self.since_us = since_us
