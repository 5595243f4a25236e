"""What was told and what was heard: this process among all others, its lease, its questions, and
what it announces.
"""

from __future__ import annotations

import logging
import os
import weakref
from typing import TYPE_CHECKING, Any

from perf_middleware.clock import monotonic_us
from perf_middleware.fleet.hearing import question_in
from perf_middleware.fleet.stores.announcements import Announcements
from perf_middleware.fleet.stores.barriers import Barriers
from perf_middleware.fleet.stores.kept_lease import KeptLease
from perf_middleware.fleet.stores.listeners import Listeners

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from perf_middleware.fleet.announcing import Overdue
    from perf_middleware.fleet.drivers.port import Link
    from perf_middleware.fleet.stores.messages import Messages

logger = logging.getLogger("perf_middleware.redis")


class Hearers:
    """The two halves of purges that all have heard: to be asked (`lease`), to ask (`barriers`).

    `on_lease(until_us)` is told how long the lease lasts; `link` and `spaces` are asked each time.
    """

    def __init__(
        self,
        link: Callable[[], Link],
        spaces: Callable[[], Iterable[Messages]],
        *,
        namespace: str,
        in_cluster: bool,
        lease_s: float,
        is_all_told: Callable[[], bool],
        on_lease: Callable[[int], None],
    ) -> None:
        self._link = link
        self._on_lease = on_lease
        self._listeners = Listeners(link, spaces, namespace=namespace, in_cluster=in_cluster)
        self._purge: Callable[[frozenset[str]], Awaitable[None]] | None = None
        self.lease = KeptLease(
            self._listeners, link, spaces, lease_s=lease_s, clock=monotonic_us, on_change=on_lease,
            purge=self._purge_overdue,
        )  # fmt: skip

        def is_ready() -> bool:
            return link().is_up and is_all_told()

        self.barriers = Barriers(
            self._listeners, lease_s=lease_s, clock=monotonic_us, is_ready=is_ready
        )
        self.announcements = Announcements(
            link, namespace=namespace, clock=monotonic_us, is_ready=is_ready
        )

    def purge_overdue_by(
        self, purge: Callable[[frozenset[str]], Awaitable[None]], all_tags: Iterable[str]
    ) -> None:
        """Have `purge(tags)` do, before there is a lease anew, what others have announced and not
        done; `all_tags` name all that there may be.
        """
        self._purge, self.lease.purges = purge, True
        self.announcements.all_tags = tuple(all_tags)

    async def _purge_overdue(self, overdue: Overdue) -> None:
        assert self._purge is not None  # noqa: S101 - or nothing is told to be overdue
        logger.warning(
            "%d writes were announced, and their writers have purged nothing in time (killed, "
            "stopped, or cut off): it is done here", len(overdue),
        )  # fmt: skip
        await self._purge(self.announcements.tags_of(overdue))
        await self.announcements.settle(overdue)

    def want_lease(self) -> bool:
        """Whether it is the first time that one is wanted: it is to be kept then."""
        if self.lease.is_wanted:
            return False
        self.lease.is_wanted = True
        own = weakref.ref(self)

        def forget() -> None:
            hearers = own()
            if hearers is not None:
                hearers._on_lease(0)  # noqa: SLF001

        if hasattr(os, "register_at_fork"):
            # Who was forked off hears nothing; it has a lease when it has asked for its own.
            os.register_at_fork(after_in_child=forget)
        return True

    # --- what comes -----------------------------------------------------------------------------

    def begin(self) -> None:
        """The app has started, and is not connected yet."""
        self.lease.begin()
        self.barriers.begin()

    def connected(self) -> None:
        self.barriers.connected()
        self.lease.renew_soon()

    def lose(self) -> None:
        """The connection."""
        self.lease.lose()  # before it is known by another name
        self._listeners.lose()
        self.barriers.lose()

    def hear(self, channel: bytes, payload: bytes) -> None:
        """Questions and answers; raises ValueError for what is neither."""
        if channel == self._listeners.own_channel:
            token, _, listener = payload.partition(b" ")
            self.barriers.hear(token, listener)
        elif channel == self._listeners.channel and payload[:1] == b"!":
            self.barriers.hear_left(payload[1:])
        elif channel == self._listeners.channel and payload[:1] == b"?":
            question = question_in(payload[1:])
            if question.channel != self._listeners.own_channel:
                self.lease.ask(question)

    async def end(self) -> None:
        """In order: nobody has to wait for this process any more, nor does anybody here."""
        await self.lease.leave()
        await self.barriers.end()

    # --- what operators see ---------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """JSON-able; nothing where no lease is wanted."""
        if not self.lease.is_wanted:
            return {}
        return {"lease": self.lease.is_valid, "listeners": self._listeners.count}
