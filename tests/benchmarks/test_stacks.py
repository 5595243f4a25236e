"""The whole stacks: every row answers alike, a hit is one, who is not installed has no row."""

import asyncio

import pytest

from benchmarks import assembled, stacks
from benchmarks.cache_apps import Calls
from benchmarks.layers import ROUTES
from benchmarks.response_cache import BARE
from benchmarks.runner import CheckError, Plan, answer_of
from benchmarks.stack_peers import PEERS, STACK, StackPeer, installed, instrumentator

TINY = Plan(rounds=1, requests=2, loop="asyncio", turns=True)
ABSENT = StackPeer("", ("no-such-peer",), ("no_such_peer",), lambda app: None)
DEEP = StackPeer("", ("no-such-peer",), ("no_such_package.inside",), lambda app: None)


class Marks:
    """Says in each answer that it was there."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def marking(message):
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-marked", b"1")]}
            await send(message)

        await self.app(scope, receive, marking)


PRESENT = StackPeer(" here", ("starlette",), ("starlette",), lambda app: app.add_middleware(Marks))


def test_every_row_of_both_routes_is_measured_beside_the_bare_app():
    reports = stacks.run(TINY)
    assert [report.title for report in reports] == [route.name for route in ROUTES]
    for report, route in zip(reports, ROUTES, strict=True):
        assert [cost.name for cost in report.costs] == [case.name for case in stacks.cases(route)]
        names = {cost.name for cost in report.costs}
        assert {stacks.BARE, stacks.DEFAULTS, stacks.EVERYTHING, stacks.MINIMUM} <= names
        assert stacks.EVERYTHING in stacks.targets(report)


def test_everything_is_everything():
    (row,) = [case for case in stacks.cases(ROUTES[0]) if case.name == stacks.EVERYTHING]
    layers = {layer.name for layer in row.build().state.perf.describe()}
    assert {
        "metrics", "operator endpoints", "rate limit", "compression", "response cache",
        "backpressure", "memory watch",
    } <= layers  # fmt: skip


def test_only_an_installed_peer_has_a_row_and_that_is_around_the_app():
    names = [case.name for case in stacks.cases(ROUTES[0], peers=[])]
    cases = stacks.cases(ROUTES[0], peers=[ABSENT, PRESENT, DEEP])
    (row,) = cases[len(names) :]
    assert row.name.startswith("starlette ")
    assert row.name.endswith(" here")
    assert b"x-marked" in asyncio.run(answer_of(row.build(), row.scope())).header_names


ALWAYS = StackPeer(
    "",
    ("prometheus-fastapi-instrumentator",),
    ("prometheus_fastapi_instrumentator",),
    instrumentator,
)


@pytest.mark.parametrize("peer", [ALWAYS, *installed(PEERS)], ids=lambda peer: peer.label)
def test_an_installed_peer_lets_the_answer_as_it_is(peer):
    (row,) = stacks.cases(ROUTES[1], peers=[peer])[-1:]
    assert asyncio.run(answer_of(row.build(), row.scope())).body == ROUTES[1].body


def test_a_hit_is_measured_beside_the_app_that_has_no_cache():
    (table,) = assembled.run(TINY)
    names = [BARE, assembled.GZIP_ALONE, assembled.MINIMUM, assembled.OURS]
    assert [line.name for line in table.lines] == names + [STACK.name] * STACK.installed
    assert table[assembled.OURS].of_ours == table[assembled.MINIMUM].of_minimum == 1.0
    assert assembled.OURS in assembled.targets(table)


def test_the_stack_that_is_put_together_has_no_row_where_a_part_of_it_is_missing():
    half = STACK._replace(modules=(*STACK.modules[:1], "no_such_peer"))
    assert STACK.name not in [row.name for row in assembled.rows(half)]


def test_a_row_that_encodes_but_keeps_nothing_is_no_hit(monkeypatch):
    monkeypatch.setattr(assembled, "hand_written", assembled.zipped)
    with pytest.raises(CheckError, match="answered without"):
        assembled.run(TINY, ABSENT)


def test_what_the_route_answers_is_what_is_expected():
    calls = Calls()
    answer = asyncio.run(answer_of(assembled.orders_app(calls), assembled._accepting_gzip()))
    assert (answer.body, calls.count) == (assembled.BODY, 1)
