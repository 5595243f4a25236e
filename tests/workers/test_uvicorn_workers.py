"""Several uvicorn workers answer as one: the real supervisor, real processes, a real kill -9."""

from __future__ import annotations

import os
import re
import signal

import httpx2
import pytest

from tests.examples.servers import eventually, serving

ORDERS = 40
COUNTS = {
    'http_requests_total{method="GET",route="/order",status="200"}': ORDERS,
    "orders_total": ORDERS,
    'shop_sales_total{kind="book"}': ORDERS,
    "shop_sizes_count": ORDERS,
    "shop_sizes_sum": 2 * ORDERS,
}


def get(server, path, **headers):
    # A connection for each request: the kernel deals connections out to the workers.
    return httpx2.get(server.url + path, headers={"Connection": "close", **headers})


def figures(server, path="/metrics"):
    lines = get(server, path).text.splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


def workers_that_answer(server, *, count):
    seen = set()
    eventually(
        lambda: seen.add(get(server, "/worker").json()["worker"]) or len(seen) >= count,
        what=f"{count} workers answer",
    )
    return seen


@pytest.fixture(scope="module")
def server():
    command = ["-m", "uvicorn", "tests.workers.counting_app:app", "--port", "0", "--workers", "3"]
    with serving(command, starts=3) as running:
        yield running


def test_every_worker_gives_the_figures_of_all_and_a_killed_one_takes_none_along(server):
    workers = workers_that_answer(server, count=3)
    for _ in range(ORDERS):
        assert get(server, "/order").status_code == 200

    def all_counted():
        seen = figures(server)
        return all(seen.get(name) == count for name, count in COUNTS.items()) and seen

    seen = eventually(all_counted, what=f"{COUNTS} wherever the scrape goes", within_s=120)
    assert seen["perf_workers"] == 3
    assert len([name for name in seen if name.startswith("shop_depth{")]) in (1, 2, 3)

    # Every worker has published by now: whoever answered last saw the counts of all.
    os.kill(min(workers), signal.SIGKILL)
    lowest = eventually(
        lambda: (now := figures(server)).get("perf_workers_folded_total") and now,
        what="the dead worker's figures are kept",
        within_s=120,
    )
    for name, count in COUNTS.items():
        assert lowest[name] >= count
    eventually(
        lambda: figures(server)["perf_workers"] == 3, what="a new worker counts", within_s=120
    )


def test_no_counter_falls_from_one_scrape_to_the_next(server):
    last: dict[str, float] = {}
    for _ in range(30):
        get(server, "/order")
        now = figures(server)
        for name, value in now.items():
            if name.partition("{")[0].endswith(("_total", "_count", "_bucket")):
                assert value >= last.get(name, 0), name
        last = now


def test_the_operators_token_opens_every_worker(server):
    token = re.search(r"Authorization: (Bearer \S+)", server.log())[1]
    answers = {get(server, "/_perf/status", Authorization=token).status_code for _ in range(20)}
    assert answers == {200}
    assert get(server, "/_perf/status").status_code == 401


def test_a_mounted_app_of_the_same_service_keeps_figures_of_its_own(server):
    workers_that_answer(server, count=3)
    for _ in range(12):
        assert get(server, "/child/page").status_code == 200

    def told(path):
        seen = figures(server, path)
        return [
            seen.get(f'http_requests_total{{method="GET",route="{route}",status="200"}}')
            for route in ("/child/page", "/page", "/order")
        ]

    get(server, "/order")
    orders = told("/metrics")[2] or 1  # of the worker that answers: others may have seen more

    def parent_told():
        *pages, ordered = told("/metrics")
        return pages == [12, None] and (ordered or 0) >= orders

    everywhere = "wherever the scrape goes"
    eventually(parent_told, what=everywhere, within_s=120)
    eventually(lambda: told("/child/metrics") == [None, 12, None], what=everywhere, within_s=120)
