"""The layer that marks probes: plain for all others."""

import anyio
import pytest

from perf_middleware.errors import SettingsError
from perf_middleware.limits.threads.drivers.mark import PROBE, is_probe
from perf_middleware.limits.threads.middleware import ProbeLane
from perf_middleware.probe_paths import PROBE_PATHS
from tests.driving import ask, http_scope


class Noting:
    """An app that notes whether its request is a probe."""

    def __init__(self):
        self.seen = []

    async def __call__(self, scope, receive, send):
        self.seen.append((scope["type"], scope.get("path"), is_probe()))
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(
    ("scope", "marked"),
    [
        *[pytest.param({"path": path}, True, id=path) for path in PROBE_PATHS],
        pytest.param({"path": "/"}, False, id="another path"),
        pytest.param({"path": "/healthz/"}, False, id="exact"),
        pytest.param({"path": "/api/healthz", "root_path": "/api"}, True, id="below a root path"),
        pytest.param({"path": "/healthz", "root_path": "/api"}, True, id="root path left out"),
        pytest.param({"path": "/api/items", "root_path": "/api"}, False, id="another below it"),
    ],
)
def test_probes_are_marked_by_their_path(scope, marked):
    app = Noting()
    answer = anyio.run(ask, ProbeLane(app), http_scope(**scope))
    assert answer.status == 204
    assert [probe for _, _, probe in app.seen] == [marked]


def test_the_mark_is_gone_after_the_request_also_after_one_that_fails():
    async def failing(scope, receive, send):
        marks.append(PROBE.get())
        raise LookupError

    marks = []

    async def main():
        with pytest.raises(LookupError):
            await ProbeLane(failing)(http_scope("/ping"), None, None)
        return is_probe()

    assert anyio.run(main) is False
    assert marks[0].is_on is False


def test_a_lifespan_passes_through():
    app = Noting()

    async def main():
        await ProbeLane(app)({"type": "lifespan"}, None, None)

    anyio.run(main)
    assert app.seen == [("lifespan", None, False)]


def test_other_requests_get_what_the_app_returns():
    returned = object()

    async def app(scope, receive, send):
        return returned

    assert anyio.run(ProbeLane(app), http_scope("/items"), None, None) is returned


def test_its_paths_can_be_chosen():
    app = Noting()
    lane = ProbeLane(app, probe_paths=("/up",), reserved_max=1)
    anyio.run(ask, lane, http_scope("/up"))
    anyio.run(ask, lane, http_scope("/healthz"))
    assert [probe for _, _, probe in app.seen] == [True, False]
    assert lane.threads.counts.reserved_max == 1


@pytest.mark.parametrize("wrong", [{"paths": ()}, {"probe_paths": ("up",)}, {"reserved_max": -1}])
def test_a_wrong_argument_is_named(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        ProbeLane(Noting(), **wrong)
