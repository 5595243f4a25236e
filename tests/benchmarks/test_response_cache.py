"""The response cache's benchmark: a hit is one, a miss is none, and the tables run through."""

import asyncio
import json
from functools import partial

import pytest

from benchmarks import response_cache, served
from benchmarks.cache_apps import (
    ENTRIES_MAX,
    PREBUILT,
    ROUTES,
    SERIALISED,
    Calls,
    HandWritten,
    Replay,
    app_of,
    fastapi_layers,
    hand_written,
    plain_scope,
)
from benchmarks.cache_peers import Peer
from benchmarks.figures import Spread
from benchmarks.layers import LARGE_BYTES
from benchmarks.response_cache import BARE, LAYERS, MINIMUM, OURS, Line, Row, Table
from benchmarks.runner import CheckError, Plan, answer_of, write_json

TINY = Plan(rounds=2, requests=10, loop="asyncio")


def answers(app, *scopes):
    async def ask():
        return [await answer_of(app, scope) for scope in scopes]

    return asyncio.run(ask())


def scope_of(**fields):
    return plain_scope() | fields


class TestApps:
    @pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
    def test_both_routes_answer_the_same_bytes(self, route):
        calls = Calls()
        (got,) = answers(app_of(route, calls), plain_scope())
        assert (got.status, got.body, calls.count) == (200, LARGE_BYTES, 1)

    @pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
    def test_both_routes_name_a_lifetime_where_a_cache_needs_one(self, route):
        app = app_of(route, Calls(), cache_control="max-age=5")
        assert b"cache-control" in answers(app, plain_scope())[0].header_names

    def test_the_hand_written_cache_answers_the_second_request_itself(self):
        calls = Calls()
        first, second = answers(hand_written(SERIALISED, calls), plain_scope(), plain_scope())
        assert calls.count == 1
        assert first.body == second.body == LARGE_BYTES
        assert second.header_names - first.header_names == {b"age"}

    @pytest.mark.parametrize(
        "other",
        [
            pytest.param({"query_string": b"page=2"}, id="query"),
            pytest.param({"path": "/large/18"}, id="path"),
            pytest.param({"headers": [(b"accept-encoding", b"br")]}, id="accept-encoding"),
        ],
    )
    def test_the_hand_written_cache_keeps_other_requests_apart(self, other):
        calls = Calls()
        answers(hand_written(PREBUILT, calls), plain_scope(), scope_of(**other), scope_of(**other))
        assert calls.count == 2

    def test_the_hand_written_cache_forgets_and_stays_small(self):
        calls = Calls()
        stale = HandWritten(app_of(PREBUILT, calls), ttl_s=0)
        answers(stale, plain_scope(), plain_scope())
        assert calls.count == 2

        calls.count = 0
        app = hand_written(PREBUILT, calls)
        answers(app, plain_scope())
        answers(app, *(scope_of(query_string=b"%d" % n) for n in range(ENTRIES_MAX)))
        answers(app, plain_scope())
        assert calls.count == 1 + ENTRIES_MAX + 1

    def test_a_replay_is_the_answer_of_a_hit(self):
        calls = Calls()
        got = answers(Replay(hand_written(PREBUILT, calls)), plain_scope(), plain_scope())
        assert [answer.body for answer in got] == [LARGE_BYTES, LARGE_BYTES]
        assert b"age" in got[0].header_names
        assert calls.count == 1

    def test_the_layers_alone_never_reach_the_route(self):
        calls = Calls()
        app = fastapi_layers(PREBUILT, calls)
        answers(app, plain_scope(), plain_scope(), plain_scope())
        assert calls.count == 1  # of the model


def peer(build=hand_written, **fields):
    fields = {"name": ", as itself", "distribution": "starlette", "module": "starlette"} | fields
    return Peer(build=build, **fields)


ABSENT = {"distribution": "no-such-cache", "module": "no_such_cache"}


class TestTable:
    @pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
    def test_every_row_is_measured_beside_the_bare_app_and_the_minimum(self, route, tmp_path):
        peers = [peer(), peer(**ABSENT)]

        table = response_cache.measured(route, TINY, peers)

        names = [line.name for line in table.lines]
        assert names == [row.name for row in response_cache.rows(route, peers)]
        assert names[0] == BARE
        assert names[-1].startswith("starlette ")
        assert {LAYERS, MINIMUM} <= set(names)
        assert table[BARE].of_bare == table[MINIMUM].of_minimum == 1.0
        assert all(line.request_us.median > 0 for line in table.lines)
        text = response_cache.markdown(table)
        assert all(f"| {name} | " in text for name in names)
        assert text.endswith("no-such-cache is not installed: no row")

        write_json(tmp_path / "report.json", [table])
        (written,) = json.loads((tmp_path / "report.json").read_text())
        assert [line["name"] for line in written["lines"]] == names

    def test_a_peer_that_calls_the_endpoint_each_time_is_refused(self):
        with pytest.raises(CheckError, match="is no hit, the endpoint ran 4 times"):
            response_cache.measured(PREBUILT, TINY, [peer(app_of)])

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            pytest.param(
                Row(name="a", build=partial(hand_written, PREBUILT), hit=False),
                "ran only 1 times of 4",
                id="a miss that is a hit",
            ),
            pytest.param(
                Row(name="a", build=lambda calls: Replay(partial(missing, calls))),
                "answered 404",
                id="an error page",
            ),
            pytest.param(
                Row(
                    name="a",
                    build=partial(hand_written, PREBUILT),
                    header_names=frozenset({b"cache-status"}),
                ),
                "answered without",
                id="a header that is not there",
            ),
        ],
    )
    def test_what_is_not_as_it_says_is_not_measured(self, row, said, monkeypatch):
        monkeypatch.setattr(response_cache, "rows", lambda route, peers: [row])
        with pytest.raises(CheckError, match=said):
            response_cache.measured(PREBUILT, TINY)

    def test_a_hit_that_stops_being_one_while_it_is_timed_is_told(self, monkeypatch):
        class Forgets(HandWritten):
            asked = 0

            async def __call__(self, scope, receive, send):
                self.asked += 1
                self._ttl_s = 0 if self.asked == 30 else 3600
                await super().__call__(scope, receive, send)

        row = Row(name="forgets", build=lambda calls: Forgets(app_of(PREBUILT, calls)))
        bare = Row(name=BARE, build=partial(app_of, PREBUILT), hit=False)
        monkeypatch.setattr(response_cache, "rows", lambda route, peers: [bare, row])
        with pytest.raises(CheckError, match="is no hit, the endpoint ran 2 times"):
            response_cache.measured(PREBUILT, TINY)


async def missing(calls, scope, receive, send):
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"no"})


def line(name, us, *, bare_us=120.0, minimum_us=6.0, ours_us=8.0, hit=True, peer=False):
    return Line(
        name=name,
        hit=hit,
        peer=peer,
        request_us=Spread(us, us, us),
        added_us=Spread(us - bare_us, us - bare_us, us - bare_us),
        of_bare=us / bare_us,
        of_minimum=us / minimum_us,
        of_ours=us / ours_us,
    )


def table_with(*lines):
    reference = (line(BARE, 120.0, hit=False), line(LAYERS, 5.0), line(MINIMUM, 6.0))
    lines = (*reference, *lines)
    return Table(title="t", rounds=1, requests=1, loop="asyncio", lines=lines)


class TestTargets:
    def test_all_are_met(self):
        table = table_with(
            line(OURS, 8.0),
            line("perf_middleware: miss", 129.0, hit=False),
            line("slow", 90.0, peer=True),
            line("fast", 60.0, peer=True),
        )
        floor = "(FastAPI's own layers alone: 24.00)"
        assert response_cache.targets(table) == [
            "- hit, x hand-written minimum: 1.33 (at most 2): met",
            f"- hit, throughput x uncached: 15.00 (at least 12): met {floor}",
            "- hit, as fast x fast: 7.50 (at least 5): met",
            "- perf_middleware: miss, added us: 9.00 (at most 10): met",
        ]

    def test_what_is_missed_is_said(self):
        table = table_with(
            line(OURS, 20.0, ours_us=20.0),
            line("perf_middleware: miss", 140.0, hit=False),
            line("fast", 60.0, ours_us=20.0, peer=True),
        )
        told = response_cache.targets(table)
        assert len(told) == 4
        assert all("MISSED" in each for each in told)

    def test_without_peers_there_is_no_comparison_with_them(self):
        assert len(response_cache.targets(table_with(line(OURS, 8.0)))) == 2

    def test_over_uvicorn_both_places_of_ours_are_told(self):
        def reached(key, of_raw):
            spread = Spread(1.0, 1.0, 1.0)
            return served.Served(
                key=key, name=key, requests_per_s=spread, of_raw=of_raw, server_us=1.0
            )

        told = response_cache.served_targets(
            [reached("raw", 1.0), reached("ours", 0.8), reached("ours-around", 0.9)]
        )
        assert [each.rpartition(" ")[2] for each in told] == ["MISSED", "met"]


class TestServed:
    def test_every_server_is_loaded_in_turns(self):
        load = served.Load(rounds=2, requests=20, connections=3, loop="asyncio")
        keys = ["raw", "minimum", "bare"]

        rows = served.measured(keys, load)

        assert [row.key for row in rows] == keys
        assert rows[0].of_raw == 1.0
        assert all(row.requests_per_s.median > 0 and row.server_us >= 0 for row in rows)
        text = served.table(rows, load)
        assert all(f"| {served.SERVERS[key].name} | " in text for key in keys)

    def test_a_load_without_a_request_is_refused(self):
        with pytest.raises(ValueError, match="positive"):
            served.Load(requests=0)


ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + LARGE_BYTES


class Transport:
    def __init__(self):
        self.written = []

    def write(self, data):
        self.written.append(data)


class TestClient:
    """The connection that loads a server, fed by hand."""

    async def fed(self, parts, *, requests=1):
        connection, transport = served.Connection(), Transport()
        connection.connection_made(transport)
        left = iter(range(requests))
        done = connection.ask_while(lambda: next(left, None) is not None)
        for part in parts:
            into = connection.get_buffer(-1)
            into[: len(part)] = part
            connection.buffer_updated(len(part))
        return done, transport.written

    @pytest.mark.parametrize(
        "at", [*range(1, 60), len(ANSWER) // 2, len(ANSWER) - 1], ids=lambda at: f"after {at}"
    )
    def test_an_answer_may_come_in_two_parts(self, at):
        async def run():
            done, written = await self.fed([ANSWER[:at], ANSWER[at:]])
            assert done.done()
            assert done.exception() is None
            assert len(written) == 1

        asyncio.run(run())

    def test_it_asks_again_only_when_the_answer_is_whole(self):
        async def run():
            done, written = await self.fed([ANSWER, ANSWER[:-1]], requests=3)
            assert not done.done()
            assert len(written) == 2
            assert written[0].startswith(b"GET /large/17 HTTP/1.1\r\nhost: ")
            assert written[0].endswith(b"\r\n\r\n")

        asyncio.run(run())

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            pytest.param(ANSWER.replace(b"200", b"500", 1), "answered", id="another status"),
            pytest.param(ANSWER + b"x", "more than the answer", id="a longer body"),
        ],
    )
    def test_a_wrong_answer_ends_the_run(self, answer, said):
        async def run():
            done, _ = await self.fed([answer])
            with pytest.raises(CheckError, match=said):
                await done

        asyncio.run(run())

    def test_a_closed_connection_ends_the_run(self):
        async def run():
            connection = served.Connection()
            connection.connection_made(Transport())
            done = connection.ask_while(lambda: True)
            connection.connection_lost(None)
            with pytest.raises(CheckError, match="closed the connection"):
                await done

        asyncio.run(run())
