"""The runner counts rightly, refuses what answers wrongly, and the tables run through."""

import asyncio
import json

import pytest

from benchmarks import exposition, layers
from benchmarks.figures import Spread, costs, spread
from benchmarks.runner import Answer, Case, CheckError, Plan, answer_of, measure, table, write_json

HELLO = Answer(status=200, body=b"hello", header_names=frozenset({b"x-ours"}))


def hello_app(calls, *, status=200, body=b"hello", headers=((b"x-ours", b"1"),)):
    async def app(scope, receive, send):
        calls.append(await receive())
        await send({"type": "http.response.start", "status": status, "headers": [*headers]})
        await send({"type": "http.response.body", "body": body})

    return app


def case(name, app, expected=HELLO):
    return Case(name=name, build=lambda: app, scope=lambda: {"type": "http"}, expected=expected)


class TestFigures:
    def test_differences_are_taken_within_a_round_before_the_median(self):
        # The machine was twice as slow in the second round; the medians of the columns alone
        # (51, 59) would not tell that ours adds 8 in every one of them.
        rounds = {"bare": [50.0, 100.0, 51.0], "ours": [58.0, 108.0, 59.0]}

        bare, ours = costs(rounds, baseline="bare")

        assert ours.added_us == Spread(8.0, 8.0, 8.0)
        assert ours.request_us.median == 59.0
        assert ours.ratio == pytest.approx(59 / 51)
        assert bare.added_us == Spread(0.0, 0.0, 0.0)
        assert bare.ratio == 1.0

    def test_the_share_of_the_peer_is_that_of_the_added_time(self):
        rounds = {"bare": [50.0, 90.0], "ours": [58.0, 99.0], "peer": [82.0, 126.0]}

        _, ours, peer = costs(rounds, baseline="bare", peer="peer")

        assert ours.peer_share == 0.25
        assert peer.peer_share == 1.0

    def test_a_round_in_which_the_peer_added_nothing_is_left_out_of_the_share(self):
        rounds = {"bare": [50.0, 50.0], "ours": [51.0, 51.0], "peer": [50.0, 54.0]}

        assert costs(rounds, baseline="bare", peer="peer")[1].peer_share == 0.25

    def test_without_a_peer_that_adds_there_is_no_share(self):
        rounds = {"bare": [50.0], "peer": [49.0]}

        assert [c.peer_share for c in costs(rounds, baseline="bare", peer="peer")] == [None, None]
        assert [c.peer_share for c in costs(rounds, baseline="bare")] == [None, None]

    def test_rounds_of_different_number_are_refused(self):
        with pytest.raises(ValueError, match="zip"):
            costs({"bare": [1.0, 2.0], "ours": [1.0]}, baseline="bare")

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            pytest.param([7.0], Spread(7.0, 7.0, 7.0), id="a single value"),
            pytest.param([1.0, 3.0], Spread(1.5, 2.0, 2.5), id="two"),
            pytest.param([5.0, 1.0, 4.0, 2.0, 3.0], Spread(2.0, 3.0, 4.0), id="in any order"),
        ],
    )
    def test_spread_is_median_and_quartiles(self, values, expected):
        assert spread(values) == expected


class TestMeasure:
    def test_every_case_is_driven_in_every_round(self):
        first, second = [], []
        plan = Plan(rounds=3, requests=10, loop="asyncio")

        report = measure(
            "two", [case("a", hello_app(first)), case("b", hello_app(second))], plan, baseline="a"
        )

        assert report.rounds == 3
        assert [cost.name for cost in report.costs] == ["a", "b"]
        assert len(first) == len(second) == 1 + 200 + 3 * (1 + 10)  # check, warm-up, rounds
        assert first[0]["type"] == "http.request"
        assert report["b"].request_us.median > 0

    @pytest.mark.parametrize(
        ("app", "said"),
        [
            pytest.param(hello_app([], status=500), "answered 500", id="status"),
            pytest.param(hello_app([], body=b"oops"), "oops", id="body"),
            pytest.param(hello_app([], headers=()), "x-ours", id="header"),
        ],
    )
    def test_what_answers_wrongly_is_not_measured(self, app, said):
        with pytest.raises(CheckError, match=said):
            measure("one", [case("a", app)], Plan(loop="asyncio"), baseline="a")

    def test_the_time_bound_ends_a_run_after_a_whole_round(self):
        plan = Plan(rounds=1000, requests=1, seconds_max=1e-9, loop="asyncio")
        cases = [case("a", hello_app([])), case("b", hello_app([]))]

        assert measure("two", cases, plan, baseline="a").rounds == 1

    def test_two_cases_of_one_name_are_refused(self):
        twice = [case("a", hello_app([]))] * 2
        with pytest.raises(ValueError, match="same name"):
            measure("two", twice, Plan(loop="asyncio"), baseline="a")

    def test_a_plan_without_a_round_is_refused(self):
        with pytest.raises(ValueError, match="positive"):
            Plan(rounds=0)


@pytest.fixture(scope="module")
def reports():
    return layers.run(Plan(rounds=2, requests=20, loop="asyncio"))


class TestLayers:
    def test_every_route_and_row_is_measured(self, reports, tmp_path):
        assert [report.title for report in reports] == [route.name for route in layers.ROUTES]
        for report, route in zip(reports, layers.ROUTES, strict=True):
            names = [row.name for row in layers.cases(route)]
            assert [cost.name for cost in report.costs] == names
            assert len(set(names)) == len(names) == 18
            assert all(cost.request_us.median > 0 for cost in report.costs)
            assert all(name in table(report) for name in names)
            assert layers.EVERYTHING in layers.targets(report)
        write_json(tmp_path / "report.json", reports)
        written = json.loads((tmp_path / "report.json").read_text())
        assert written[0]["costs"][0]["name"] == layers.BARE

    def test_the_layers_named_by_a_row_are_there(self):
        route = layers.ROUTES[0]
        rows = {row.name: row for row in layers.cases(route)}

        def installed(name):
            app = rows[name].build()
            assert asyncio.run(answer_of(app, rows[name].scope())).status == 200
            return app.state.perf

        off = installed("install: all off")
        assert [layer.name for layer in off.describe() if layer.place == "outer"] == []
        assert off.metrics.recorder.figures.totals() == (0, 0)
        endpoints = installed("install: operator endpoints only")
        assert next(layer.name for layer in endpoints.describe()) == "operator endpoints"
        for name in ("install: metrics only, options off", layers.DEFAULTS, layers.EVERYTHING):
            (series,) = installed(name).metrics.recorder.figures.by_key
            assert series == ("GET", route.path, 200)
        traced = installed(f"{layers.EVERYTHING}, traced client")
        assert traced.metrics.recorder.figures.timings()[0].exemplars

    def test_the_instrumentator_counts_too(self):
        (row,) = [row for row in layers.cases(layers.ROUTES[0]) if row.name == layers.PEER]
        app = row.build()
        asyncio.run(answer_of(app, row.scope()))
        (middleware,) = app.user_middleware
        registry = middleware.kwargs["registry"]
        labels = {"handler": "/large/{item}", "method": "GET", "status": "2xx"}
        assert registry.get_sample_value("http_requests_total", labels) == 1.0


class TestExposition:
    def test_every_reader_and_size_is_measured(self, monkeypatch):
        monkeypatch.setattr(exposition, "SERIES", (100, 400))

        rows = asyncio.run(exposition.measured(scrapes=2))

        assert [row.series for row in rows] == [100] * 3 + [400] * 3
        assert all(row.total_ms.median > 0 and row.held_ms.median > 0 for row in rows)
        assert "generate_latest" in exposition.table(rows)

    def test_both_sides_render_the_same_number_of_series(self):
        routes = 4
        scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": []}
        ours = asyncio.run(answer_of(exposition.our_page(routes), scope)).body
        theirs = exposition.generate_latest(exposition.their_registry(routes))

        def series(page):
            lines = [line for line in page.decode().splitlines() if line.startswith(("http", "pe"))]
            return [line for line in lines if "route=" in line and "_created" not in line]

        assert len(series(ours)) == len(series(theirs)) == routes * exposition.SERIES_PER_ROUTE
