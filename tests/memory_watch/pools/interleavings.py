"""Users of a pool that do everything wrong, in an order that a seed decides; and their ledger.

Real: the pools, asyncio's tasks, futures, timers and cancellation, anyio's scopes, garbage
collection of what is forgotten, and, with threads, the interpreter's own switching.  Not real: the
time of the event loop, which jumps to its next timer instead of waiting for it.
"""

import asyncio
import random
import selectors
from contextlib import suppress

from perf_middleware.errors import PerfMiddlewareError, PoolTimeoutError

ACTORS = 40
SIZE_MAX = 8
TURN_S = 2e-5
WHAT = ("lent", "given back", "timed out", "refused", "cancelled", "failed", "trimmed", "closed")


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose turns take TURN_S each, and which jumps when it has nothing to do."""

    def __init__(self):
        super().__init__(JumpingSelector(self))
        self.now_s = 0.0

    def time(self):
        return self.now_s

    def clock_us(self):
        return round(self.now_s * 1e6)


class JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop):
        super().__init__()
        self._loop = loop

    def select(self, timeout=None):
        assert timeout is not None, "everybody waits, and nobody will ever wake anybody"
        self._loop.now_s += timeout or TURN_S
        return []


class Ledger:
    """What the users know themselves: who has what, what was closed, what was forgotten."""

    def __init__(self):
        self.made = self.closed = self.forgotten = self.steps = self.held = 0
        self.done = dict.fromkeys(WHAT, 0)

    def note(self, what):
        self.steps += 1
        self.done[what] += 1


class Thing:
    """A pooled object that notices when two have it at once, or one has it when it is closed."""

    __slots__ = ("__weakref__", "is_closed", "is_held", "ledger")

    def __init__(self, ledger):
        self.ledger = ledger
        self.is_held = self.is_closed = False
        ledger.made += 1

    def take(self):
        assert not self.is_held
        assert not self.is_closed
        self.is_held = True
        self.ledger.held += 1

    def give(self):
        self.is_held = False
        self.ledger.held -= 1

    def close(self):
        assert not self.is_held
        assert not self.is_closed
        self.is_closed = True
        self.ledger.closed += 1

    def __del__(self):
        if self.is_held:
            self.ledger.forgotten += 1
            self.ledger.held -= 1


class Chaos:
    """Calls of a pool that take some turns of the loop, and fail now and then."""

    def __init__(self, rng, ledger):
        self.rng, self.ledger = rng, ledger
        self.is_over = False

    async def turn(self, share_failing):
        chance = self.rng.random()
        if chance < 0.5:
            await asyncio.sleep(0 if chance < 0.45 else chance / 200)
        if not self.is_over and self.rng.random() < share_failing:
            self.ledger.note("failed")
            raise OSError

    async def create(self):
        await self.turn(0.1)
        return Thing(self.ledger)

    async def check(self, thing):
        await self.turn(0.1)
        return self.rng.random() < 0.9

    async def reset(self, thing):
        await self.turn(0.03)

    async def close(self, thing):
        thing.close()
        await self.turn(0.1)


async def use(pool, rng, ledger):
    """One loan, however it ends."""
    chance = rng.random()
    timeout_s = None if chance < 0.6 else rng.random() / 50
    if chance < 0.01:
        thing = await pool.acquire(timeout_s=timeout_s)
        thing.take()
        ledger.note("lent")
        return  # and never gives it back
    async with pool.lend(timeout_s=timeout_s) as thing:
        thing.take()
        ledger.note("lent")
        try:
            if chance > 0.3:
                await asyncio.sleep(0 if chance < 0.95 else chance / 100)
            if chance > 0.97:
                raise KeyError
        finally:
            thing.give()
            ledger.note("given back")


async def actor(pool, rng, ledger, until):
    task = asyncio.current_task()
    while ledger.steps < until:
        try:
            await use(pool, rng, ledger)
            if rng.random() < 0.3:
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            task.uncancel()
            ledger.note("cancelled")
        except (PerfMiddlewareError, OSError) as error:
            ledger.note("timed out" if isinstance(error, PoolTimeoutError) else "refused")
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.005)
        except KeyError:
            pass


async def canceller(tasks, pool, rng, ledger, until):
    """Cancels somebody almost each turn; closes and opens the pool now and then."""
    state = pool._state
    while ledger.steps < until:
        # No wake-up is lost either, though each wait would end in its time.
        assert not state.waiting or (state.size == SIZE_MAX and not state.idle)
        for _ in range(rng.randrange(3)):
            rng.choice(tasks).cancel()
        chance = rng.random()
        if chance < 0.005:
            await pool.trim(rng.random())
            ledger.note("trimmed")
        elif chance < 0.007:
            ledger.note("closed")
            await pool.close(drain_s=rng.random() / 100)
            async with asyncio.timeout(60):  # of the loop's own time
                while pool._state.size:
                    await asyncio.sleep(0.01)
            await pool.open()
        await asyncio.sleep(0)


async def run(make_pool, seed, steps):
    """The ledger and the pool, which is open, after so many steps."""
    rng = random.Random(seed)
    ledger = Ledger()
    chaos = Chaos(rng, ledger)
    pool = make_pool(chaos, asyncio.get_running_loop().clock_us)
    await pool.open()
    tasks = [asyncio.create_task(actor(pool, rng, ledger, steps)) for _ in range(ACTORS)]
    await asyncio.sleep(0)  # one that is cancelled before it begins is no user
    await canceller(tasks, pool, rng, ledger, steps)
    await asyncio.gather(*tasks, return_exceptions=False)
    chaos.is_over = True
    return ledger, pool
