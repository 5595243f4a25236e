"""Quotas that hold for all processes together, over a real Redis."""

import anyio
import pytest

from perf_middleware.fleet.runtime import Fleet
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
            with anyio.fail_after(60):
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
        assert answer.header("ratelimit") == '"default";r=0;t=1800'
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
