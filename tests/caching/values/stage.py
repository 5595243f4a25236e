"""A value cache on a clock of its own, and functions that count their calls."""

import anyio
import pytest

from perf_middleware import ValueCache

US = 1_000_000
DEADLINE_S = 120
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Clock:
    """Moves only here."""

    def __init__(self):
        self.us = 5 * US

    def __call__(self):
        return self.us

    def pass_s(self, seconds):
        self.us += round(seconds * US)


def made(**options):
    """A cache and its clock."""
    clock = Clock()
    return ValueCache(clock=clock, **{"draw": lambda: 0.0} | options), clock


def run(main, backend="asyncio"):
    """The result of `main()` on an event loop, within the deadline."""

    async def bounded():
        with anyio.fail_after(DEADLINE_S):
            return await main()

    return anyio.run(bounded, backend=backend)


class Calls(list):
    """What a function was called with."""

    def __call__(self, *args):
        self.append(args)
        return len(self)


class Gate:
    """Holds up a function until it is opened; counts who came."""

    def __init__(self):
        self.came = 0
        self.open = anyio.Event()

    async def wait(self):
        self.came += 1
        await self.open.wait()


async def settled():
    """Let every task that can run do so."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()
