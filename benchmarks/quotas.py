"""What it costs to judge one request: in memory beside other rate limiters, in Redis beside a round
trip that does nothing.

    python -m benchmarks.quotas                                    # peers that are installed
    python -m benchmarks.quotas --redis redis://127.0.0.1:6379/15

In memory every row admits requests of a thousand clients in turn, each within 10,000 an hour; CPU
time.  In Redis the baseline is `EVALSHA` of `return 1` over the same link, with a key and an
argument as long as ours; wall time, one request after the other.  Short interleaved rounds: compare
ratios.  Before anything is timed each row must refuse who is over its quota.
"""

from __future__ import annotations

import argparse
import gc
import platform
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha1
from importlib.metadata import version
from importlib.util import find_spec
from itertools import count as forever
from itertools import cycle
from time import perf_counter_ns, process_time_ns
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
from redis.asyncio import Redis

from benchmarks.figures import costs
from benchmarks.runner import CheckError, Report, arguments, on_loop, ratio_table, write_json
from perf_middleware.clock import monotonic_us
from perf_middleware.fleet.runtime import Fleet
from perf_middleware.limits.rate.gcra import Demand, Quota
from perf_middleware.limits.rate.middleware import RateLimitMiddleware
from perf_middleware.limits.rate.settings import RateLimitSettings
from perf_middleware.limits.rate.stores.fallback import FleetQuotas
from perf_middleware.limits.rate.stores.memory import MemoryQuotas
from perf_middleware.limits.rate.stores.redis import SharedQuotas

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from perf_middleware.asgi import Message, Receive, Scope, Send
    from perf_middleware.fleet.stores.script import Script

    Judge = Callable[[str, bytes], bool]
    Ask = Callable[[], Awaitable[object]]

HOUR_S: Final = 3_600
COUNT: Final = 10_000
CLIENTS: Final = [f"client:10.0.{n // 250}.{n % 250}" for n in range(1_000)]
FLOOR: Final = "a dict: d[key] += 1"
BARE: Final = "EVALSHA of `return 1`"
BARE_REDIS_PY: Final = "EVALSHA of `return 1`, by redis-py"
LAYER: Final = "RateLimitMiddleware, the whole request"
NAMESPACE: Final = "perf-benchmark-quotas"
REDIS_CALLS: Final = 50


@dataclass(frozen=True, slots=True)
class Row:
    """One limiter: `make(count)` admits so many an hour; `module` is what must be installed."""

    name: str
    make: Callable[[int], Judge]
    distribution: str | None = None
    module: str = "perf_middleware"

    @property
    def label(self) -> str:
        if self.distribution is None:
            return self.name
        return f"{self.distribution} {version(self.distribution)}{self.name}"


# --- in memory ----------------------------------------------------------------------------------


def by_hand(count: int) -> Judge:
    counts: dict[bytes, int] = {}

    def judge(_text: str, key: bytes) -> bool:
        counts[key] = counts.get(key, 0) + 1
        return counts[key] <= count

    return judge


def take_one(count: int) -> Judge:
    quotas, quota = MemoryQuotas(), Quota.per(count, HOUR_S)
    return lambda _text, key: not quotas.take_one(key, quota).wait_us


def take_one_anew(count: int) -> Judge:
    """Each of a client that was never seen, with the bound reached."""
    quotas, quota = MemoryQuotas(entries_max=10_000), Quota.per(count, HOUR_S)
    numbers = forever()

    def judge(_text: str, key: bytes) -> bool:
        if count == COUNT:
            key = b"%b:%d" % (key, next(numbers))
        return not quotas.take_one(key, quota).wait_us

    return judge


def take_one_moved(count: int) -> Judge:
    """Where an interval is longer than a slot: the entry moves with each request."""
    quota = Quota.per(20, HOUR_S) if count == COUNT else Quota.per(count, HOUR_S)
    gap_us = quota.interval_us // len(CLIENTS) + 1  # each client comes once in an interval
    quotas = MemoryQuotas(clock=forever(0, gap_us).__next__ if count == COUNT else monotonic_us)
    return lambda _text, key: not quotas.take_one(key, quota).wait_us


def take_two(count: int) -> Judge:
    quotas, quota, other = MemoryQuotas(), Quota.per(count, HOUR_S), Quota.per(10**9, HOUR_S)

    def judge(_text: str, key: bytes) -> bool:
        return quotas.take((Demand(key, quota), Demand(b"everybody", other))).admitted

    return judge


def refused(count: int) -> Judge:
    if count != COUNT:
        return take_one(count)
    quotas, quota = MemoryQuotas(), Quota.per(count, HOUR_S)

    def judge(_text: str, key: bytes) -> bool:
        return quotas.take_one(key, quota, COUNT + 1).wait_us != 0

    return judge


def limits_fixed(count: int) -> Judge:
    from limits import RateLimitItemPerHour
    from limits.storage import MemoryStorage
    from limits.strategies import FixedWindowRateLimiter

    limiter, item = FixedWindowRateLimiter(MemoryStorage()), RateLimitItemPerHour(count)
    return lambda text, _key: limiter.hit(item, text)


def limits_moving(count: int) -> Judge:
    from limits import RateLimitItemPerHour
    from limits.storage import MemoryStorage
    from limits.strategies import MovingWindowRateLimiter

    limiter, item = MovingWindowRateLimiter(MemoryStorage()), RateLimitItemPerHour(count)
    return lambda text, _key: limiter.hit(item, text)


def throttled(count: int) -> Judge:
    from throttled import MemoryStore, RateLimiterType, Throttled, rate_limiter

    limiter = Throttled(
        using=RateLimiterType.GCRA.value,
        quota=rate_limiter.per_hour(count, burst=count),
        store=MemoryStore(options={"MAX_SIZE": 100_000}),
    )
    return lambda text, _key: not limiter.limit(text).limited


def pyrate(count: int) -> Judge:
    """A limiter for each client, as it has none that tells them apart."""
    from pyrate_limiter import InMemoryBucket, Limiter, Rate, SingleBucketFactory

    limiters: dict[str, Any] = {}

    def judge(text: str, _key: bytes) -> bool:
        limiter = limiters.get(text)
        if limiter is None:
            bucket = InMemoryBucket([Rate(count, HOUR_S * 1_000)])
            factory = SingleBucketFactory(bucket, schedule_leak=False)
            limiter = limiters[text] = Limiter(factory)
        return bool(limiter.try_acquire(text, blocking=False))

    return judge


ROWS: Final = (
    Row(FLOOR, by_hand),
    Row("take_one: GCRA", take_one),
    Row("take_one, in another slot each time", take_one_moved),
    Row("take_one, a new key each time, full", take_one_anew),
    Row("take_one, refused", refused),
    Row("take of two quotas", take_two),
    Row(": fixed window", limits_fixed, "limits", "limits"),
    Row(": moving window", limits_moving, "limits", "limits"),
    Row(": GCRA", throttled, "throttled-py", "throttled"),
    Row(": leaky bucket", pyrate, "pyrate-limiter", "pyrate_limiter"),
)


def in_memory(*, rounds: int, calls: int, seed: int) -> dict[str, list[float]]:
    """Microseconds of a request of each row, round by round.

    Raises CheckError for a row that does not limit.
    """
    judges = {row.label: _checked(row) for row in ROWS if find_spec(row.module) is not None}
    pairs = [(text, text.encode()) for text in CLIENTS]
    times: dict[str, list[float]] = {name: [] for name in judges}
    order, shuffle = list(judges), random.Random(seed).shuffle
    gc.collect()
    gc.freeze()
    try:
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                gc.collect()
                judge, clients = judges[name], cycle(pairs)
                _drive(judge, clients, calls // 10)
                times[name].append(_drive(judge, clients, calls) / calls / 1_000)
    finally:
        gc.unfreeze()
    return times


def _checked(row: Row) -> Judge:
    judge = row.make(3)
    told = [judge("ann", b"ann") for _ in range(4)] + [judge("bob", b"bob")]
    if told != [True, True, True, False, True]:
        raise CheckError(f"{row.label}: 3 of 4 may pass, and another client: {told}")
    judge = row.make(COUNT)
    if not judge("ann", b"ann"):
        raise CheckError(f"{row.label}: refuses the first request")
    return judge


def _drive(judge: Judge, clients: Any, calls: int) -> int:
    began_ns = process_time_ns()
    for _ in range(calls):
        judge(*next(clients))
    return process_time_ns() - began_ns


# --- in Redis -----------------------------------------------------------------------------------


class _Nothing:
    """A script that does nothing."""

    name = "nothing"
    text = "return 1"
    sha = sha1(text.encode(), usedforsecurity=False).hexdigest()


@asynccontextmanager
async def fleet_at(url: str) -> AsyncIterator[Fleet]:
    """The Redis there; what quotas of NAMESPACE left in it is gone afterwards."""
    fleet = Fleet(url, timeout_s=5.0, namespace=NAMESPACE)
    fleet.ensure_kept()
    with anyio.fail_after(10):
        while not fleet.is_up:  # noqa: ASYNC110 - once
            await anyio.sleep(0.01)
    try:
        yield fleet
        async for keys in fleet.link.scan(b"{%b:quota}:" % NAMESPACE.encode()):
            await fleet.link.command("UNLINK", *keys)
    finally:
        await fleet.close()


async def in_redis(url: str, *, rounds: int, seed: int) -> dict[str, list[float]]:
    """The same of the shared quotas, and of the bare round trip."""
    async with fleet_at(url) as fleet:
        link, quota = fleet.link, Quota.per(COUNT, HOUR_S)
        shared = SharedQuotas(link, namespace=NAMESPACE)
        with_fallback = FleetQuotas(shared, MemoryQuotas())
        pair, several = Quota.per(2, HOUR_S), (Demand(b"bob", quota), Demand(b"all", quota))
        told = [(await shared.take([Demand(b"ann", pair)])).admitted for _ in range(3)]
        if told[2]:
            raise CheckError(f"2 of 3 may pass in Redis: {told}")
        nothing = cast("Script", _Nothing)
        keys = cycle(b"{%b:quota}:%b" % (NAMESPACE.encode(), text.encode()) for text in CLIENTS)
        demands = cycle([(Demand(text.encode(), quota),) for text in CLIENTS])
        over = (Demand(b"ann", pair),)
        client = Redis.from_url(url)
        digest = await client.script_load(_Nothing.text)
        layer = _layer(fleet)
        rows: dict[str, Ask] = {
            BARE: lambda: link.run(nothing, [next(keys)], [b"0123456789abcdef"]),
            BARE_REDIS_PY: lambda: client.evalsha(digest, 1, next(keys), b"0123456789abcdef"),
            LAYER: lambda: layer(_scope(), _receive, _send),
            "SharedQuotas.take": lambda: shared.take(next(demands)),
            "SharedQuotas.take, refused": lambda: shared.take(over),
            "SharedQuotas.take of two quotas": lambda: shared.take(several),
            "FleetQuotas.take": lambda: with_fallback.take(next(demands)),
        }
        times: dict[str, list[float]] = {name: [] for name in rows}
        order, shuffle = list(rows), random.Random(seed).shuffle
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                ask = rows[name]
                await ask()
                began_ns = perf_counter_ns()
                for _ in range(REDIS_CALLS):
                    await ask()
                times[name].append((perf_counter_ns() - began_ns) / REDIS_CALLS / 1_000)
        await client.aclose()
    return times


def _layer(fleet: Fleet) -> RateLimitMiddleware:
    """Around an app that answers at once: what its request takes is the layer's, but for 1 us."""
    rate = RateLimitSettings(quotas=(f"{COUNT}/hour",)).make_rate_limit()
    rate.share(fleet)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    return RateLimitMiddleware(app, rate)


def _scope() -> Scope:
    return {
        "type": "http", "method": "GET", "path": "/items", "raw_path": b"/items", "headers": [],
        "query_string": b"", "root_path": "", "client": ("192.0.2.1", 50_000), "scheme": "http",
    }  # fmt: skip


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Message) -> None:
    """Nobody is there."""


def main() -> None:
    """Print the tables."""
    parser = arguments(__doc__, rounds=60)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--calls", type=int, default=2_000, help="a round and row, in memory")
    parser.add_argument("--redis", metavar="URL", help="measure the shared quotas too")
    parser.add_argument("--seed", type=int, default=1, help="of the order in a round")
    options = parser.parse_args()
    seed = options.seed
    tables = [
        ("in memory", FLOOR, options.calls,
         in_memory(rounds=options.rounds, calls=options.calls, seed=seed))
    ]  # fmt: skip
    if options.redis is not None:
        rounds = 5 * options.rounds
        times = on_loop(options.loop, in_redis(options.redis, rounds=rounds, seed=seed))
        tables.append(("in Redis", BARE, REDIS_CALLS, times))
    reports = []
    for title, baseline, calls, times in tables:
        report = Report(
            title=f"one request judged {title}",
            baseline=baseline,
            peer=None,
            rounds=len(times[baseline]),
            requests=calls,
            loop=options.loop,
            python=platform.python_version(),
            costs=costs(times, baseline=baseline, peer=None),
        )
        reports.append(report)
        print(f"\n{ratio_table(report, unit='us/request', ratio='x first')}")
    write_json(options.json, reports)


if __name__ == "__main__":
    main()
