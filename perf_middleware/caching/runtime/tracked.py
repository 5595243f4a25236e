"""Tracked rules: an answer holds until somebody writes what it was made of.

    the app is called -> its reads are collected -> they become tags of what is stored
    a commit          -> purges by those tags    -> it is gone in every process

Who collects, and who purges, is told by `join`; this cache knows only what it needs of both.  What
is stored so is used only while all purges are known to be heard of (`is_over`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from contextvars import ContextVar
    from typing import TypeAlias

    from perf_middleware.caching.rules import CachePolicy
    from perf_middleware.caching.stored import StoredResponse
    from perf_middleware.clock import Clock

logger = logging.getLogger("perf_middleware.caching")

TOLD_MAX: Final = 100  # rules whose name is told in the log
LEASE: Final = "lease"
"""Not used, or not stored: other processes may have purged it unheard."""
UNTRACKED: Final = "untracked"
"""Not stored: what it was made of was not collected."""
NO_READS: Final = "no-reads"
"""Not stored: nothing that it was made of was seen, so nobody would ever purge it."""


class Reads(Protocol):
    """What one call of the app has read; filled while it runs."""

    def refusal(self) -> str | None:
        """Why nothing that was made of it may be stored; None where it may."""

    def tags(self) -> tuple[str, ...]:
        """By which a later write will purge it; none where nothing was read."""

    def since(self, purges_seen: int) -> int:
        """The number of the purge that all of it is newer than, `purges_seen` at most."""


Begun: TypeAlias = "tuple[Reads, Any]"


class Tracked:
    """What one cache knows of tracked rules; without `join` no answer of theirs is stored."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._make: Callable[[], Reads] | None = None
        self._current: ContextVar[Any] | None = None
        self._on_use: list[Callable[[], object]] = []
        self._lease_until_us: Callable[[], int] | None = None
        self._told: set[str] = set()
        self.current: ContextVar[Any] | None = None
        """Where the reads of a call are collected; None while no rule is tracked."""
        self.settle: Callable[[], Awaitable[None]] | None = None
        """Waits for purges that could not be waited for where they were committed."""
        self.is_settled: Callable[[], bool] = lambda: True
        self.lease_over = 0
        """Requests that were not answered from memory, for it might be older than a purge."""

    def join(self, current: ContextVar[Any], make: Callable[[], Reads]) -> None:
        """From now on reads are collected in `current` by what `make` makes."""
        self._current, self._make = current, make

    def when_used(self, do: Callable[[], object]) -> None:
        """Call `do` as soon as it is known that a rule is tracked; now, where it is."""
        self._on_use.append(do)
        if self.current is not None:
            do()

    def use(self) -> None:
        """A rule is tracked: collect from here on."""
        if self.current is None and self._current is not None:
            self.current = self._current
            for do in self._on_use:
                do()

    def lease(self, until_us: Callable[[], int]) -> None:
        """What is stored in memory is used only until then, on the monotonic clock."""
        self._lease_until_us = until_us

    # --- a call of the app ------------------------------------------------------------------------

    def begin(self, rule: CachePolicy | None) -> Begun | None:
        """Collect what is read from here on, where it may count; to be ended by `end`."""
        current = self.current
        if current is None or self._make is None or (rule is not None and not rule.tracked):
            return None
        reads, before = self._make(), current.get()
        current.set(reads)
        return reads, before

    def end(self, begun: Begun | None) -> None:
        """Stop collecting."""
        if begun is not None and self.current is not None:
            self.current.set(begun[1])

    # --- storing and using ------------------------------------------------------------------------

    def is_over(self, now_us: int) -> bool:
        """Whether memory may lack a purge that other processes have made."""
        return self._lease_until_us is not None and now_us >= self._lease_until_us()

    def may_not_use(self, stored: StoredResponse) -> bool:
        """Whether `stored` is tracked, and memory may lack a purge of it."""
        return bool(stored.dependencies) and self.is_over(self._clock())

    def refusal(self, rule: CachePolicy, begun: Begun | None, *, is_whole: bool) -> str | None:
        """Why an answer of a tracked rule is not stored; `is_whole` once nothing more is read."""
        if begun is None:
            self._tell_unknown(rule)
            return UNTRACKED
        if self.is_over(self._clock()):
            return LEASE
        reads = begun[0]
        return reads.refusal() or (NO_READS if is_whole and not reads.tags() else None)

    def status(self) -> dict[str, Any]:
        """JSON-able: whether a rule is tracked, and whether memory is known to lack no purge."""
        lease = None
        if self._lease_until_us is not None:
            lease = "over" if self.is_over(self._clock()) else "held"
        return {"in_use": self.current is not None, "lease": lease, "lease_over": self.lease_over}

    def learn(self, policies: Iterable[Any]) -> None:
        """What decorators have left on the endpoints of the app."""
        if any(getattr(policy, "tracked", False) for policy in policies):
            self.use()

    def _tell_unknown(self, rule: CachePolicy) -> None:
        if rule.name in self._told or len(self._told) >= TOLD_MAX:
            return
        self._told.add(rule.name)
        if self._current is None:
            why = "there is no database whose statements are looked at"
        else:
            why = "it was not known when the app started; set tracking.enabled to true"
        logger.warning("the tracked rule %s stores nothing: %s", rule.name, why)
