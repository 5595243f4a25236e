"""A blocked event loop as the user of `install` meets it: settings, handle, status, events."""

import json
import logging
import runpy
import threading
import time

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from perf_middleware import Settings, install
from perf_middleware.errors import SettingsError
from perf_middleware.metrics.probes.watchdog import THREAD_NAME
from perf_middleware.metrics.watching.blocks import LoopBlock
from tests.driving import ask, http_scope

pytestmark = pytest.mark.usefixtures("nothing_set")

QUICK = {"lag_interval_s": 0.02, "blocked_s": 0.1}


async def monthly(request):
    time.sleep(0.5)
    return PlainTextResponse("done")


def served(endpoint=monthly, *, requests=1, **runtime):
    """The handle of an app that has answered `requests`, each of which blocks the loop."""
    app = Starlette(routes=[Route("/reports/{month}", endpoint)])
    perf = install(app, Settings(runtime=QUICK | runtime))
    seen = []
    perf.events.subscribe(LoopBlock, lambda b: seen.append((b, threading.current_thread().name)))

    async def scenario():
        async with perf.running():
            for _ in range(requests):
                await anyio.sleep(0.1)
                await ask(app, http_scope("/reports/5"))
                await anyio.sleep(0.1)

    anyio.run(scenario)
    return perf, seen


def test_the_handle_gives_the_blocks_newest_first_and_the_status_shows_them():
    perf, _ = served(requests=2)
    newer, older = (b for b in perf.recent_blocks() if b.code == "time.sleep(0.5)")
    assert newer.at_s > older.at_s
    shown = perf.status()["resources"]["event loop probe"]["detail"]["recent_blocks"]
    assert shown == [block.as_dict() for block in perf.recent_blocks()]
    json.dumps(shown)


def test_the_settings_bound_what_is_kept():
    perf, _ = served(requests=2, blocked_kept_max=1)
    assert len(perf.recent_blocks()) == 1


def test_without_the_probes_there_are_no_blocks():
    assert install(Starlette(), Settings(runtime={"enabled": False})).recent_blocks() == []


def test_subscribers_hear_of_a_block_on_the_watchdogs_thread():
    perf, seen = served()
    assert [block for block, _ in seen if block.ended] == perf.recent_blocks()[::-1]
    assert {thread for _, thread in seen} == {THREAD_NAME}


def test_the_report_says_how_many_requests_were_in_progress(caplog):
    with caplog.at_level(logging.WARNING):
        perf, _ = served()
    assert [b.load for b in perf.recent_blocks() if b.code == "time.sleep(0.5)"] == ["1 request"]
    assert any(r.getMessage().endswith(", while serving 1 request") for r in caplog.records)


def test_code_in_site_packages_is_the_apps_where_own_paths_name_it(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "shop_reports"
    package.mkdir(parents=True)
    module = package / "views.py"
    module.write_text("import time\n\n\ndef build():\n    time.sleep(0.5)\n")
    build = runpy.run_path(str(module))["build"]

    async def endpoint(request):
        build()
        return PlainTextResponse("done")

    monkeypatch.setenv("PERFORMANCE_RUNTIME_OWN_PATHS", f"{package}, /srv/more")
    perf, _ = served(endpoint)
    assert perf.settings.runtime.own_paths == (str(package), "/srv/more")
    (block,) = [b for b in perf.recent_blocks() if b.line and b.line.function == "build"]
    assert (block.origin, block.code) == ("own", "time.sleep(0.5)")


@pytest.mark.parametrize("path", ["", "app", "./app"])
def test_an_own_path_must_be_absolute(path):
    with pytest.raises(SettingsError, match=r"own_paths.*must be absolute"):
        Settings(runtime={"own_paths": [path]})


def health_input(perf):
    rows = perf.status()["health"]["inputs"]
    return next((row for row in rows if row["name"] == "event loop blocked"), None)


def test_the_score_does_not_flip_with_the_newest_heartbeat():
    """Polled between two blocks, a loop that stood still half of the time had a score of 100."""
    app = Starlette(routes=[Route("/reports/{month}", monthly)])
    perf = install(app, Settings(runtime=QUICK))
    polls = []

    async def scenario():
        async with perf.running():
            await anyio.sleep(0.1)
            for _ in range(8):
                await ask(app, http_scope("/reports/5"))
                await anyio.sleep(0.06)
                polls.append(health_input(perf)["value"])

    anyio.run(scenario)
    assert polls == sorted(polls)
    assert polls[-1] > 0.25


def test_a_loop_that_nobody_measures_has_no_figures_and_no_part_in_the_score():
    """With the lifespan off, a lag of 0.0 was shown for a loop that nobody had measured."""
    perf = install(Starlette(), Settings())
    names = {family.name for family in perf.metrics.families()}
    assert not {name for name in names if name.startswith(("perf_event_loop_", "perf_gc_"))}
    assert not {name for name in names if name.startswith("perf_process_stall")}
    assert health_input(perf) is None
