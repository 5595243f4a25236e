"""What the heartbeat on the loop and the watchdog beside it share."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from perf_middleware.metrics.watching.stalls import STALL_CAUSES, StallCause

if TYPE_CHECKING:
    from collections.abc import Callable

    import anyio

LATE_BEATS_MAX = 64  # late beats waiting to be judged; there is one at a time unless we are starved


class Pulse:
    """What the heartbeat and the watchdog share, for one opening of the probe.

    The heartbeat writes all fields but `wake` is cleared by the watchdog.  A late beat enters
    `late` before `due_us` moves on, so the watchdog misses none.
    """

    __slots__ = (
        "closed",
        "cpu_clock",
        "due_us",
        "is_running",
        "late",
        "scope",
        "thread_id",
        "wake",
    )

    def __init__(self) -> None:
        self.closed = False
        self.due_us: int | None = None
        self.late: deque[tuple[int, int]] = deque(maxlen=LATE_BEATS_MAX)  # (due, came), us
        self.wake = threading.Event()
        self.thread_id = 0
        self.cpu_clock: int | None = None
        self.is_running: Callable[[], bool] = lambda: True
        self.scope: anyio.CancelScope | None = None


@dataclass(slots=True)
class WatchCounts:
    """What the watchdog has counted since the probe was made; it is the only writer."""

    blocked: int = 0
    blocked_us: int = 0
    stalls: dict[StallCause, int] = field(default_factory=lambda: dict.fromkeys(STALL_CAUSES, 0))
    stalled_us: dict[StallCause, int] = field(
        default_factory=lambda: dict.fromkeys(STALL_CAUSES, 0)
    )
    errors: int = 0
