"""gcra.lua says what gcra.py says; and what only a real server shows.

The script reads the server's clock and nothing else.  Against the model it runs with that one line
replaced, so that time is an argument here and cannot be one in production.
"""

from itertools import count

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis import Redis

from perf_middleware.errors import StoreRefusedError, StoreUnavailableError
from perf_middleware.fleet.runtime import Fleet
from perf_middleware.limits.rate.gcra import (
    NEVER,
    WINDOW_US_MAX,
    Demand,
    Left,
    Outcome,
    Quota,
    decide,
)
from perf_middleware.limits.rate.stores.redis import GCRA, SharedQuotas
from tests.fleet.servers import RedisServer
from tests.fleet.test_cluster import Cluster

THE_CLOCK = "local time = call('TIME')\n"
GIVEN_CLOCK = "local time = {0, ARGV[2]}\n"
BEGIN_US = 2**51  # in 2041: what a test writes does not expire
NUMBERS = count()
MINUTE = Quota.per(100, 60)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    started = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def client(server):
    with Redis.from_url(server.url) as client:
        yield client


def run(coroutine):
    """Of what waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


def due_in(dues):
    return lambda key: dues.get(key, 0)


class ClockedLink:
    """Runs the script at a time that the test says."""

    def __init__(self, client):
        self.now_us = BEGIN_US
        self._client = client
        assert GCRA.text.count(THE_CLOCK) == 1
        assert GCRA.text.count("TIME") == 1
        self._script = client.register_script(GCRA.text.replace(THE_CLOCK, GIVEN_CLOCK))

    async def run(self, script, keys, arguments):
        assert script is GCRA
        return self._script(keys, [*arguments, self.now_us])


# --- the script and the model -------------------------------------------------------------------

QUOTAS = (
    Quota(1), Quota(7, 5), Quota(1_000, 3), Quota(999_999, 7), MINUTE, Quota(WINDOW_US_MAX),
    Quota(1, WINDOW_US_MAX), Quota(WINDOW_US_MAX // 3, 3),
)  # fmt: skip
keys = st.sampled_from((b"a", b"b", b"{c}\r\n\x00", b"x" * 500))
costs = st.one_of(st.integers(0, 8), st.sampled_from((100, 2**50, 2**53 + 1, 10**30)))
gaps = st.one_of(
    st.integers(0, 20), st.integers(0, 2_000_000), st.integers(-3_000_000, 0), st.just(10**9)
)


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            gaps, st.lists(st.builds(Demand, keys, st.sampled_from(QUOTAS), costs), max_size=4)
        ),
        max_size=12,
    )
)
@example(
    [(0, [Demand(b"a", Quota(1, WINDOW_US_MAX), WINDOW_US_MAX)]), (1, [Demand(b"a", QUOTAS[5])])]
)
@example([(0, [Demand(b"a", MINUTE, 100)]), (-1, [Demand(b"a", MINUTE, 0)])])
@example([(0, [Demand(b"a", MINUTE, 100)]), (-1, [Demand(b"a", MINUTE)] * 2)])
def test_the_script_decides_as_the_model_to_the_microsecond(client, schedule):
    namespace = f"model-{next(NUMBERS)}"
    link = ClockedLink(client)
    shared = SharedQuotas(link, namespace=namespace)
    dues = {}
    for gap_us, demands in schedule:
        link.now_us += gap_us
        told = run(shared.take(demands))
        model, changed = decide(demands, due_in(dues), now_us=link.now_us)
        dues |= changed
        assert told == model
        for demand in demands:
            kept = int(client.get(shared._key(demand.key)) or 0)
            assert kept == dues.get(demand.key, 0)


# --- a real server, its own clock ---------------------------------------------------------------


def on_link(server, test, *, cluster=False):
    async def main():
        fleet = Fleet(server.url, cluster=cluster, timeout_s=5.0)
        fleet.ensure_kept()
        with anyio.fail_after(120):
            while not fleet.is_up:
                await anyio.sleep(0.005)
        try:
            await test(fleet.link, SharedQuotas(fleet.link, namespace=f"real-{next(NUMBERS)}"))
        finally:
            await fleet.close()

    anyio.run(main)


def test_a_bucket_is_one_number_that_expires_when_it_is_due(server, client):
    async def test(link, shared):
        await shared.take([Demand(b"a", MINUTE, 50)])
        key = shared._key(b"a")
        seconds, micros = client.time()
        assert 0 < int(client.get(key)) - (seconds * 1_000_000 + micros) <= 30_000_000
        assert 0 < client.pttl(key) <= 30_001
        await shared.take([Demand(b"b", Quota(20_000)), Demand(b"c", Quota(20_000))])
        await anyio.sleep(0.1)
        assert client.get(shared._key(b"b")) is None
        assert client.get(shared._key(b"c")) is None

    on_link(server, test)


def test_a_refused_request_and_a_look_write_nothing(server, client):
    async def test(link, shared):
        assert (await shared.take([Demand(b"a", MINUTE, 0)])).admitted
        assert await shared.take([Demand(b"a", MINUTE, 101), Demand(b"b", MINUTE)]) == Outcome(
            False, (Left(100, NEVER, 0), Left(100, 0, 0))
        )
        assert client.exists(shared._key(b"a"), shared._key(b"b")) == 0

    on_link(server, test)


@pytest.mark.parametrize("content", [b"not a number", b"nan", b"-5", b"1e400", b"1.5", b""])
def test_what_is_no_due_time_locks_nobody_out(server, client, content):
    async def test(link, shared):
        client.set(shared._key(b"a"), content)
        await shared.take([Demand(b"a", Quota(1_000, 2))])
        await anyio.sleep(0.02)
        assert await shared.take([Demand(b"a", MINUTE)]) == Outcome(True, (Left(99, 0, 600_000),))

    on_link(server, test)


def test_a_key_of_another_type_is_a_refusal_of_the_store(server, client):
    async def test(link, shared):
        client.hset(shared._key(b"a"), "x", "y")
        for demands in ([Demand(b"a", MINUTE)], [Demand(b"b", MINUTE), Demand(b"a", MINUTE)]):
            with pytest.raises(StoreRefusedError, match="WRONGTYPE"):
                await shared.take(demands)
        assert client.get(shared._key(b"b")) is None, "nothing is charged"

    on_link(server, test)


def test_all_buckets_of_a_request_are_on_one_node_of_a_cluster(tmp_path):
    cluster = Cluster(tmp_path)

    async def test(link, shared):
        demands = [Demand(b"client:%d" % number, MINUTE, 100) for number in range(5)]
        assert (await shared.take(demands)).admitted
        assert not (await shared.take(demands[::-1])).admitted
        assert not (await shared.take(demands[:1])).admitted
        assert cluster.nodes_with("{real-*:quota}:*") == 1

    try:
        on_link(cluster, test, cluster=True)
    finally:
        cluster.stop()


class OddLink:
    def __init__(self, answer):
        self.answer = answer

    async def run(self, script, keys, arguments):
        return self.answer


@pytest.mark.parametrize("answer", [None, b"1", True, [1], "x", 1.5, {}, b"\xff" * 16])
@pytest.mark.parametrize("several", [1, 2])
def test_an_answer_that_no_script_of_ours_gives_is_a_refusal(answer, several):
    shared = SharedQuotas(OddLink(answer))
    with pytest.raises(StoreRefusedError, match="no answer of the script"):
        run(shared.take([Demand(b"a", MINUTE)] * several))


def test_while_it_is_away_it_says_so_at_once():
    shared = SharedQuotas(Fleet("redis://127.0.0.1:1/0").link)
    with pytest.raises(StoreUnavailableError):
        run(shared.take([Demand(b"a", MINUTE)]))


def test_a_cost_below_0_is_a_mistake_in_redis_too():
    with pytest.raises(ValueError, match="cost"):
        run(SharedQuotas(OddLink(1)).take([Demand(b"a", MINUTE, -1)]))


def test_nothing_asked_needs_no_round_trip():
    assert run(SharedQuotas(OddLink(None)).take([])) == Outcome(True, ())
