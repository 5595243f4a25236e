"""The app of the consistency tests: versioned items, whose truth is outside of all workers.

The truth is a number for each item in another database of the same Redis; the bundle gets its own
settings from the environment.  `TRUTH_URL` names the database.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import redis.asyncio
from fastapi import FastAPI

from perf_middleware import Settings, cache_response, install
from tests.fleet.lateness import Lateness

SLOW_S_MAX = 0.02  # between reading the truth and answering: what is old by then must not stay

truth = redis.asyncio.from_url(os.environ.get("TRUTH_URL", "redis://127.0.0.1:1/1"))
lateness = Lateness(truth.ping)  # of this worker, and of Redis


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    looking = asyncio.create_task(lateness.run())
    yield
    looking.cancel()


app = FastAPI(lifespan=lifespan)
perf = install(app, Settings())


async def seen(n: int) -> dict[str, int]:
    version = int(await truth.get(f"truth:{n}") or 0)
    await asyncio.sleep(random.uniform(0, SLOW_S_MAX))
    return {"n": n, "version": version, "pid": os.getpid()}


@app.get("/items/{n}")
@cache_response(ttl=300, tags=["item:{n}"])
async def item(n: int) -> dict[str, int]:
    return await seen(n)


@app.get("/items/{n}/words")
@cache_response(ttl=300, tags=["item:{n}"], vary=["accept-language"])
async def words(n: int) -> dict[str, int]:
    return await seen(n)


@app.get("/pages/{n}")
@cache_response(ttl=300, tags=["item:{n}"], query=["page"])
async def pages(n: int, page: int) -> dict[str, int]:
    del page
    return await seen(n)


@app.put("/items/{n}")
async def write(n: int) -> dict[str, int]:
    """Makes its own URL invalid, and no other."""
    return {"version": await truth.incr(f"truth:{n}")}


@app.post("/items/{n}/touch")
async def touch(n: int, by: str) -> dict[str, Any]:
    """Makes nothing invalid but what it purges."""
    version = await truth.incr(f"truth:{n}")
    match by:
        case "tag":
            await perf.cache.purge(tags=f"item:{n}")
        case "soft":
            await perf.cache.purge(tags=f"item:{n}", soft=True)
        case "url":
            await perf.cache.purge(url=f"/items/{n}")
            await perf.cache.purge(url=f"/pages/{n}?{urlencode({'page': 1})}")
        case "pattern":
            await perf.cache.purge(pattern=f"/items/{n}/*")
        case _:
            raise ValueError(by)
    return {"version": version}


@app.get("/figures")
async def figures() -> dict[str, Any]:
    shared = perf.cache.shared
    assert shared is not None
    totals = perf.cache.status()
    return {
        "pid": os.getpid(),
        "hits": totals["hits"],
        "misses": totals["misses"],
        "collapsed": totals["collapsed"],
        "found": shared.found,
        "missing": shared.missing,
        "stored": shared.stored,
        "outdated": shared.outdated,
        "dropped": shared.outbox.dropped,
        "refused": shared.outbox.refused,
        "waited": shared.leases.waited,
        "queued": len(shared.outbox),
        "pending": shared.purges.pending,
        "up": shared.is_up,
        "downs": shared._fleet.changes["down"],
        "timeouts": shared._fleet.link.timeouts,
        "gaps": shared._records.gaps,
        "late_s": lateness.most_s,
    }
