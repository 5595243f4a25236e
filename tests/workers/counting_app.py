"""An app with figures of each kind: ours, its own, and those of prometheus_client."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prometheus_client import Counter, Gauge, Summary

from perf_middleware import Settings, install

SALES = Counter("shop_sales", "Sales.", ["kind"])
SIZES = Summary("shop_sizes", "Sizes.")
DEPTH = Gauge("shop_depth", "Depth.")

child = FastAPI()
child_perf = install(child, Settings())  # the same service, in the same process


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with child_perf.running():
        yield


app = FastAPI(lifespan=lifespan)
perf = install(app, Settings())
app.mount("/child", child)
orders = perf.metrics.counter("orders", "Orders.")


@app.get("/order")
async def order() -> dict[str, int]:
    SALES.labels("book").inc()
    SIZES.observe(2)
    DEPTH.set(1)
    orders.inc()
    return {"worker": os.getpid()}


@app.get("/worker")
async def worker() -> dict[str, int]:
    return {"worker": os.getpid()}


@child.get("/page")
async def page() -> str:
    return "child"
