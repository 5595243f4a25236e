"""The metrics page over a real server: every form, coding and method."""

import gzip
import http.client
import json

import pytest
from fastapi import FastAPI
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from perf_middleware import Settings, install
from tests.http.servers import Server, serving

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,*/*;q=0.1"
)
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def server():
    app = FastAPI()

    @app.get("/items/{id}")
    async def item(id: int):
        return {"id": id}

    @app.get("/fails")
    async def fails():
        raise LookupError("unhandled")

    install(app, Settings(metrics={"default_registry": False}))
    server = Server(app, http="h11")  # httptools refuses methods that it does not know
    with serving(server):
        for number in range(5):
            assert asked(server, f"/items/{number}", traceparent=TRACEPARENT)[0] == 200
        assert asked(server, "/fails")[0] == 500
        assert asked(server, "/none")[0] == 404
        yield server


def asked(server, path="/metrics", method="GET", **headers):
    """Status, headers and body of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=150)
    try:
        connection.request(
            method, path, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def counted(families):
    (requests,) = [family for family in families if family.name == "http_requests"]
    return {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for sample in requests.samples
        if sample.name == "http_requests_total"
    }


@pytest.mark.parametrize(
    ("accept", "content_type", "parse"),
    [
        pytest.param("*/*", "text/plain; version=0.0.4; charset=utf-8", parse_text, id="curl"),
        pytest.param(
            PROMETHEUS, "application/openmetrics-text; version=1.0.0; charset=utf-8",
            parse_openmetrics, id="Prometheus 3",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_a_scrape_has_the_figures_in_the_form_asked_for(
    server, accept, content_type, parse, coding
):
    status, headers, body = asked(server, accept=accept, accept_encoding=coding)
    assert (status, headers["content-type"]) == (200, content_type)
    assert headers.get("content-encoding", "identity") == coding
    assert headers["cache-control"] == "no-store"
    text = (gzip.decompress(body) if coding == "gzip" else body).decode()
    families = list(parse(text))
    told = counted(families)
    assert told["/items/{id}", "200"] == 5
    assert told["/fails", "500"] == 1
    assert told["unmatched", "404"] == 1
    names = {family.name for family in families}
    assert {"http_request_duration_seconds", "http_requests_in_progress"} <= names
    in_progress = [f for f in families if f.name == "http_requests_in_progress"]
    assert [s.value for f in in_progress for s in f.samples] == [1]  # this scrape itself
    exemplars = [s.exemplar for f in families for s in f.samples if s.exemplar]
    assert bool(exemplars) is (parse is parse_openmetrics)


def test_people_and_scripts_get_the_summary(server):
    status, headers, body = asked(server, accept="application/json")
    summary = json.loads(body)
    assert (status, headers["content-type"]) == (200, "application/json")
    rows = {row["route"]: row for row in summary["routes"]}
    assert rows["/items/{id}"]["statuses"] == {"200": 5}
    assert rows["/fails"]["exceptions"] == 1
    assert summary["failed"] >= 1
    assert 0 < rows["/items/{id}"]["p50_s"] <= rows["/items/{id}"]["p99_s"]
    assert summary["this_process"]["rate_per_s"] > 0


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_head_has_the_head_alone(server, coding):
    status, headers, body = asked(server, method="HEAD", accept_encoding=coding)
    assert (status, body) == (200, b"")
    assert headers["content-type"].startswith("text/plain")
    assert asked(server)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_another_method_is_not_allowed(server, method):
    status, headers, body = asked(server, method=method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert json.loads(body)["status"] == 405


def test_the_page_counts_itself_by_its_own_path(server):
    asked(server)
    assert counted(parse_text(asked(server)[2].decode()))["/metrics", "200"] >= 1


def test_methods_that_a_client_makes_up_add_no_series(server):
    for number in range(20):
        asked(server, "/items/1", method=f"MADE{number}")
    _, _, body = asked(server)
    lines = body.decode().splitlines()
    made_up = [line for line in lines if line.startswith("http_requests_total") and "MADE" in line]
    assert made_up == []
    assert 'http_requests_total{method="other",route="/items/{id}",status="405"} 20' in lines
