"""An app that is asked on several event loops at once: a test client in threads makes one each."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from perf_middleware import Settings, install
from perf_middleware.caching.runtime.flights import Flights

AT_ONCE = 4
FRESH = {"cache-control": "max-age=60"}


def test_nobody_waits_for_a_call_of_the_app_on_another_loop():
    """A fixed bug: they got 500 (`Event … is bound to a different event loop`)."""
    together = Barrier(AT_ONCE, timeout=60)  # only once each of them has called the app

    async def endpoint(request):
        if request.url.path == "/together":
            together.wait()
        return PlainTextResponse("told", headers=FRESH)

    app = Starlette(routes=[Route("/known", endpoint), Route("/together", endpoint)])
    perf = install(app, Settings(cache={"default_ttl": 60}))

    def ask(path):
        return TestClient(app).get(path)

    assert ask("/known").status_code == 200
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(ask, ["/together"] * AT_ONCE))
    assert [(answer.status_code, answer.text) for answer in answers] == [(200, "told")] * AT_ONCE
    assert perf.cache.flights.waiting == 0
    assert not perf.cache.flights.open
    assert "; hit" in ask("/together").headers["cache-status"]


def test_on_a_loop_of_its_own_one_call_is_still_for_all():
    """In whichever thread it runs."""
    calls = []

    async def endpoint(_request):
        calls.append(1)
        await asyncio.sleep(0.05)
        return PlainTextResponse("told", headers=FRESH)

    app = Starlette(routes=[Route("/", endpoint)])
    install(app, Settings(cache={"default_ttl": 60}))
    with TestClient(app) as client, ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(client.get, ["/"] * AT_ONCE))
    assert [answer.status_code for answer in answers] == [200] * AT_ONCE
    assert len(calls) == 1


def test_who_asks_on_another_loop_takes_nothing_from_those_who_share_one():
    flights = Flights(waiting_max=10)

    def elsewhere(call, *arguments):
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(call, *arguments).result()

    one, other = {}, {}
    assert flights.lead_alone(b"/1", one)
    assert elsewhere(flights.lead_alone, b"/2", other)
    assert not elsewhere(flights.lead_alone, b"/1", other)
    assert (flights.is_led_here(b"/1"), flights.is_led_here(b"/2")) == (True, False)
    assert not elsewhere(flights.is_led_here, b"/1")
    assert (flights.leader_of(b"/1"), flights.leader_of(b"/2")) == (one, other)
    elsewhere(flights.land_alone, b"/2", other, "stored")
    assert flights.lead_alone(b"/2", one)
    assert flights.is_led_here(b"/2")
