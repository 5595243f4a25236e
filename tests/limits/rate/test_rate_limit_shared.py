"""Quotas that hold for all processes together, over a real Redis."""

import logging

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from perf_middleware import Settings, install
from perf_middleware.fleet.runtime import Fleet
from perf_middleware.limits.rate.decorators import rate_limit
from tests.driving import ask, http_scope
from tests.fleet.servers import RedisServer
from tests.limits.rate.rate_stage import Stage, quota


@pytest.fixture
def own_server(tmp_path):
    server = RedisServer(tmp_path / "own").start()
    yield server
    server.stop()


def over(server, test, *stages):
    """Run `test` with a fleet of its own for each stage, as processes have."""

    async def main():
        fleets = [Fleet(server.url, timeout_s=1.0, heartbeat_s=0.1) for _ in stages]
        for fleet, stage in zip(fleets, stages, strict=True):
            stage.rate.share(fleet)
            fleet.ensure_kept()
        try:
            with anyio.fail_after(120):
                for fleet in fleets:
                    while not fleet.is_up:
                        await anyio.sleep(0.005)
                await test()
        finally:
            for fleet in fleets:
                await fleet.close()

    anyio.run(main)


def test_processes_share_a_quota_and_forget_it_together(own_server):
    one, other = Stage(quota("2/hour")), Stage(quota("2/hour"))

    async def test():
        assert (await one.ask()).status == 200
        answer = await other.ask()
        state, _, left_s = answer.header("ratelimit").rpartition("=")
        assert state == '"default";r=0;t'
        assert 1_600 < int(left_s) <= 1_800  # by the server's clock, which goes on
        assert [(await stage.ask()).status for stage in (one, other)] == [429, 429]
        assert (await one.rate.peek("default", "192.0.2.1")).admitted is False
        assert await one.rate.forget("default", "192.0.2.1") is True
        assert (await other.rate.peek("default", "192.0.2.1")).remaining == 2
        assert (await other.ask()).status == 200
        assert one.rate.status()["store"]["shared"] is True

    over(own_server, test, one, other)


def test_several_quotas_are_judged_together(own_server):
    stage = Stage(quota("1/hour"), quota("5/hour", "header:x-api-key", name="key"))

    async def test():
        headers = [("x-api-key", "secret")]
        assert (await stage.ask(headers=headers)).status == 200
        refused = await stage.ask(headers=headers)
        assert refused.json()["violated-policies"] == ["default"]
        assert (await stage.rate.peek("key", "secret")).remaining == 4

    over(own_server, test, stage)


def test_without_redis_each_process_judges_alone(own_server):
    stage = Stage(quota("1/hour"), quota("9/hour", name="open", when_down="open"))

    async def test():
        await anyio.to_thread.run_sync(own_server.stop)
        stage.clock.pass_s(10_000)
        assert (await stage.ask()).status == 200
        assert (await stage.ask()).status == 429
        assert await stage.rate.forget("default", "192.0.2.1") is False
        answer = await ask(stage.layer, http_scope())
        assert answer.status == 200
        assert stage.rate.status()["store"]["shared"] is False

    over(own_server, test, stage)


def test_nothing_of_a_key_that_a_client_sends_is_kept_or_told(own_server, nothing_set, caplog):
    caplog.set_level(logging.DEBUG)
    secret = "Bearer s3cret-of-a-client"
    headers = [("authorization", secret), ("x-key", secret), ("x-long", secret * 99)]

    async def home(request):
        return PlainTextResponse("hello")

    def own_key(scope):
        return dict(scope["headers"])[b"x-key"]

    app = Starlette(routes=[Route("/", rate_limit("1/hour", key=own_key)(home))])
    quotas = [
        {"limit": "2/hour", "name": "token", "key": "header:authorization"},
        {"limit": "2/hour", "name": "long", "key": "client+header:x-long"},
        {"limit": "1/hour", "name": "tried", "key": "header:Authorization", "dry_run": True},
    ]
    perf = install(app, Settings(ratelimit={"quotas": quotas}, redis={"url": own_server.url}))

    async def main():
        async with perf.running():
            with anyio.fail_after(120):
                while b"perf_redis_up 1" not in (await ask(app, http_scope("/metrics"))).body:
                    await anyio.sleep(0.01)
            seen = [await ask(app, http_scope(headers=headers)) for _ in range(3)]
            assert [answer.status for answer in seen] == [200, 429, 429]
            kept = own_server.say_all("KEYS", "*")
            assert b"token|h" in kept
            await anyio.to_thread.run_sync(own_server.stop)
            seen += [await ask(app, http_scope(headers=headers)) for _ in range(3)]
            metrics = await ask(app, http_scope("/metrics"))
            assert b'quota="token"' in metrics.body
            told = [str(answer.headers).encode() + answer.body for answer in (*seen, metrics)]
            return [kept, *told, str(perf.status()).encode(), caplog.text.encode()]

    for place in anyio.run(main):
        for part in (b"s3cret", secret.encode().hex().encode()):
            assert part not in place
