"""docs/custom-metrics.md: its blocks run as they stand, and its apps show what it says."""

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "custom-metrics.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def run(block):
    names = {"__name__": "docs_block"}
    exec(compile(block, "docs/custom-metrics.md", "exec"), names)
    return names


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_runs_on_its_own(block):
    run(block)


def block_with(text):
    (block,) = (block for block in BLOCKS if text in block)
    return run(block)


def test_the_figures_appear_on_the_metrics_page():
    names = block_with("def place_order")
    client = TestClient(names["app"])
    assert client.post("/orders?channel=phone").json() == {"placed": "phone"}
    page = client.get("/metrics").text
    assert 'orders_total{channel="phone"} 1\n' in page
    assert "uploads_waiting 0\n" in page
    assert 'upload_bytes_bucket{le="1e+06"} 1\n' in page


def test_the_timers_appear_on_the_metrics_page():
    names = block_with("async def load_user")
    client = TestClient(names["app"])
    assert client.get("/users/7").json() == {"user": "User 7"}
    page = client.get("/metrics").text
    assert 'perf_timer_seconds_count{name="load user",category="db"} 1\n' in page
    assert 'perf_timer_seconds_count{name="render",category="template"} 1\n' in page
    assert 'perf_timer_memory_bytes_count{name="read rows",category="db"} 1\n' in page


def test_the_overflow_appears_on_the_metrics_page():
    names = block_with("label_sets_max")
    page = TestClient(names["perf"]).get("/metrics").text
    assert 'jobs_total{owner="other"} 2\n' in page
    assert re.search(r'perf_metrics_label_overflow_total\{metric="jobs"\} \d', page)


def test_the_middleware_alone_appears_on_the_apps_own_page():
    names = block_with("make_asgi_app")
    client = TestClient(names["app"])
    client.get("/nowhere")
    page = client.get("/metrics/").text
    assert "http_requests_total{" in page
    assert "http_request_duration_seconds_bucket{" in page
