"""A memory watch whose memory the test sets."""

import threading
import time

import anyio
import pytest

from perf_middleware.events import Events, MemoryCleaned, MemoryStepChanged
from perf_middleware.memory_watch.ladder import Ladder
from perf_middleware.memory_watch.reading import Bound, MemorySample
from perf_middleware.memory_watch.runtime import MemoryWatch

S = 1_000_000
LIMIT = 1_000_000
DEADLINE_S = 120
LADDER = Ladder(
    soft_share=0.75, hard_share=0.88, critical_share=0.95, relief_share=0.05, cooldown_us=10 * S
)
BACKENDS = pytest.mark.parametrize(
    "backend", [("asyncio", {}), ("asyncio", {"use_uvloop": True}), ("trio", {})],
    ids=["asyncio", "uvloop", "trio"],
)  # fmt: skip


class FakeClock:
    """Moves only here."""

    def __init__(self):
        self.us = 1_000 * S

    def __call__(self):
        return self.us

    def pass_s(self, seconds):
        self.us += round(seconds * S)


def real_clock():
    return time.perf_counter_ns() // 1000


class Stage:
    """`share` is what the next look sees: a number, None for no bound, or an error."""

    def __init__(self, share=0.1, *, clock=None, name="cgroup", **options):
        self.clock = clock or FakeClock()
        self.share = share
        self.name = name
        self.looks_in = []
        self.changes, self.cleaned = [], []
        events = Events()
        events.subscribe(MemoryStepChanged, self.changes.append)
        events.subscribe(MemoryCleaned, self.cleaned.append)
        self.watch = MemoryWatch(
            self.sample, clock=self.clock, events=events,
            **{"ladder": LADDER, "collect": False} | options,
        )  # fmt: skip

    def sample(self):
        self.looks_in.append(threading.current_thread().name)
        if isinstance(self.share, Exception):
            raise self.share
        bounds = ()
        if self.share is not None:
            used_bytes = round(self.share * LIMIT)
            bounds = (Bound(name=self.name, used_bytes=used_bytes, limit_bytes=LIMIT),)
        return MemorySample(at_us=self.clock(), rss_bytes=5, bounds=bounds)

    def feed(self, *shares, step_s=1.0):
        """Look once at each share: the steps."""
        steps = []
        for self.share in shares:
            self.clock.pass_s(step_s)
            self.watch.look()
            steps.append(self.watch.step)
        return steps

    def fall(self, share):
        """A callback that frees down to `share`."""

        def free(pressure):
            freed_bytes = max(0, round((self.share - share) * LIMIT))
            self.share = min(self.share, share)
            return freed_bytes

        return free


def run(main, backend=("asyncio", {})):
    """The result of `main()` on an event loop, within the deadline."""

    async def bounded():
        with anyio.fail_after(DEADLINE_S):
            return await main()

    return anyio.run(bounded, backend=backend[0], backend_options=backend[1])


def wait_until(is_true):
    """In a thread's time."""
    until_s = time.monotonic() + DEADLINE_S
    while not is_true():
        assert time.monotonic() < until_s
        time.sleep(0.002)


async def until(is_true):
    """In the loop's time."""
    while not is_true():
        await anyio.sleep(0.002)


def value_of(watch, name, /, **labels):
    [family] = [family for family in watch.families() if family.name == name]
    [point] = [p for p in family.points if dict(p.labels.pairs) == labels]
    return point.value
