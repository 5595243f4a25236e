"""An app with figures of each kind: ours, its own, and those of prometheus_client."""

import os

from fastapi import FastAPI
from prometheus_client import Counter, Gauge, Summary

from perf_middleware import Settings, install

SALES = Counter("shop_sales", "Sales.", ["kind"])
SIZES = Summary("shop_sizes", "Sizes.")
DEPTH = Gauge("shop_depth", "Depth.")

app = FastAPI()
perf = install(app, Settings())
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


child = FastAPI()
child_perf = install(child, Settings())  # the same service, in the same process
app.mount("/child", child)


@child.get("/page")
async def page() -> str:
    return "child"
