"""`perf.limits`: what keeps one app fair under use and alive under overload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perf_middleware.limits.deadlines.runtime import current_deadline

if TYPE_CHECKING:
    from perf_middleware.limits.callers import Callers
    from perf_middleware.limits.concurrency.runtime import Backpressure
    from perf_middleware.limits.deadlines.runtime import Deadlines, RequestDeadline
    from perf_middleware.limits.overload.runtime import OverloadLevel
    from perf_middleware.limits.rate.runtime import RateLimit
    from perf_middleware.limits.threads.runtime import ThreadOffload


class Limits:
    """The parts, each of which is there also where its layer is not.

    `rate` judges by quotas, `backpressure` gives permits, `deadlines` cuts, `overload` measures,
    `threads` watches those of sync endpoints; `callers` tells who asks.
    """

    def __init__(
        self,
        *,
        callers: Callers,
        rate: RateLimit,
        backpressure: Backpressure,
        deadlines: Deadlines,
        overload: OverloadLevel,
        threads: ThreadOffload,
    ) -> None:
        self.callers = callers
        self.rate = rate
        self.backpressure = backpressure
        self.deadlines = deadlines
        self.overload = overload
        self.threads = threads

    def deadline(self) -> RequestDeadline | None:
        """When the answer to the running request has to begin; None where no deadline holds."""
        return current_deadline()

    @property
    def level(self) -> int:
        """How loaded this process is, as layers obey it: 0 normal, 1 busy, 2 overloaded."""
        return self.overload.level

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture of each part."""
        return {
            "overload": self.overload.status(),
            "rate": self.rate.status(),
            "backpressure": self.backpressure.status(),
            "deadlines": self.deadlines.status(),
            "threads": self.threads.status(),
        }
