"""An app whose workers are short of memory where a file names their pids; it notes what happens.

FINISHING_DIRECTORY holds `short` (pids), `turn/` (the lock) and `notes` (a line for each event).
"""

import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import psutil
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from perf_middleware.events import WorkerFinishing
from perf_middleware.memory_watch.middleware import MemoryWatchMiddleware
from perf_middleware.memory_watch.middleware.guard import guard_of
from perf_middleware.memory_watch.reading import Bound, MemorySample
from perf_middleware.memory_watch.settings import MemorySettings
from perf_middleware.memory_watch.shedding import CRITICAL

DIRECTORY = Path(os.environ.get("FINISHING_DIRECTORY", "."))
GAP_S = float(os.environ.get("FINISHING_GAP_S", "1"))
PARTS = 5
PART = b"x" * 1_000
GIB = 1 << 30


def note(what: str, *, at_s: float | None = None) -> None:
    at_s = time.monotonic() if at_s is None else at_s
    with (DIRECTORY / "notes").open("a") as notes:
        notes.write(f"{what} {os.getpid()} {at_s}\n")


def note_asked(_: WorkerFinishing) -> None:
    """Now, and since when it is this worker's turn, from which the pause counts."""
    note("turn", at_s=int((DIRECTORY / "turn" / "shop.turn").read_text()) / 1_000_000)
    note("asked")


class FileWatch:
    """Critical where the file names this process; the rest is real."""

    def __init__(self) -> None:
        self.step = 0
        self.on_sample: list[Callable[[MemorySample], object]] = []
        self.on_end: list[Callable[[], object]] = []
        self._is_over = threading.Event()
        self._own = psutil.Process()

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        self._is_over.set()

    def _run(self) -> None:
        short = DIRECTORY / "short"
        while not self._is_over.wait(0.05):
            pids = short.read_text().split() if short.exists() else []
            self.step = CRITICAL if str(os.getpid()) in pids else 0
            bound = Bound(name="cgroup", used_bytes=99 if self.step else 1, limit_bytes=100)
            # Far more than its siblings have: the larger one goes first.
            rss_bytes = self._own.memory_info().rss + (GIB if self.step else 0)
            for call in self.on_sample:
                call(MemorySample(at_us=0, rss_bytes=rss_bytes, bounds=(bound,)))


async def slow(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(PARTS):
            await anyio.sleep(0.1)
            yield PART

    return StreamingResponse(parts(), headers={"x-worker": str(os.getpid())})


async def state(request: Request) -> Response:
    return JSONResponse({"worker": os.getpid(), "in_flight": guard.in_flight})


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    watch.start()
    yield
    watch.stop()
    note("closed")


watch = FileWatch()
guard = guard_of(
    MemorySettings(finish=True, finish_uptime_s_min=0.5, finish_gap_s=GAP_S, cleanup_s_max=0.2),
    watch,
    service="shop",
    directory=DIRECTORY / "turn",
    on_change=note_asked,
)
app = Starlette(
    routes=[Route("/slow", slow), Route("/state", state)],
    middleware=[Middleware(MemoryWatchMiddleware, guard)],
    lifespan=lifespan,
)
