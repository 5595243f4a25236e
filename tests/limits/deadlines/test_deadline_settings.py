"""The section `deadlines`: nothing by default, and clear words for what is wrong."""

import pytest
from pydantic import ValidationError

from perf_middleware.errors import SettingsError
from perf_middleware.limits.deadlines.choices import BodyChoice, TimeoutChoice
from perf_middleware.limits.deadlines.decorators import body_limit, timeout
from perf_middleware.limits.deadlines.middleware.bodies import RequestLimitsMiddleware
from perf_middleware.limits.deadlines.middleware.timeouts import DeadlineMiddleware
from perf_middleware.limits.deadlines.settings import DeadlineSettings
from tests.driving import http_scope


async def app(scope, receive, send):
    """Never called here."""


def test_by_default_neither_layer_stands():
    section = DeadlineSettings()
    assert (section.has_timeouts, section.has_request_limits) == (False, False)


@pytest.mark.parametrize(
    ("settings", "stands"),
    [
        ({"timeout_s": 1}, (True, False)),
        ({"follow_header": True}, (True, False)),
        ({"rules": [{"path": "/a", "timeout_s": 1}]}, (True, False)),
        ({"rules": [{"path": "/a", "timeout_s": None}]}, (False, False)),
        ({"rules": [{"path": "/a", "body_bytes_max": 1}]}, (False, True)),
        ({"body_bytes_max": 0}, (False, True)),
        ({"body_idle_s": 1}, (False, True)),
        ({"body_bytes_per_s_min": 1}, (False, True)),
        ({"body_grace_s": 1}, (False, False)),
        ({"header_bytes_max": 1}, (False, True)),
        ({"header_count_max": 1}, (False, True)),
        ({"url_bytes_max": 1}, (False, True)),
        ({"timeout_s": 1, "body_bytes_max": 1, "enabled": False}, (False, False)),
    ],
)
def test_a_layer_stands_where_something_of_it_is_set(settings, stands):
    section = DeadlineSettings(**settings)
    assert (section.has_timeouts, section.has_request_limits) == stands


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"timeout_s": 0}, "greater than or equal to 0.001"),
        ({"timeout_s": float("nan")}, "finite"),
        ({"header": "grpc timeout"}, "name of a header field"),
        ({"body_bytes_max": -1}, "greater than or equal to 0"),
        ({"exempt": ["no-slash"]}, "does not start with /"),
        ({"rules": [{"path": "/a"}]}, "neither timeout_s nor body_bytes_max"),
        ({"rules": [{"path": "a", "timeout_s": 1}]}, "does not start with /"),
        ({"rules": [{"path": "/a", "body_bytes_max": 1, "covers": "total"}]}, "covers nothing"),
        ({"rules": [{"path": "/a", "timeout_s": 1, "methods": ["GET IT"]}]}, "no method"),
        ({"timeouts": 1}, "Extra inputs"),
    ],
)
def test_a_wrong_setting_fails_when_it_is_made(settings, words):
    with pytest.raises(ValidationError, match=words):
        DeadlineSettings(**settings)


def test_a_rule_that_does_not_speak_of_timeouts_leaves_them_alone():
    section = DeadlineSettings(
        timeout_s=1,
        rules=[
            {"path": "/upload", "body_bytes_max": 10},
            {"path": "/upload", "timeout_s": None},
            {"path": "/upload", "timeout_s": 7},
        ],
    )
    made = section.make_deadlines()
    assert made.timeouts.rule_for(http_scope("/upload")) == TimeoutChoice(None)
    assert made.bodies.rule_for(http_scope("/upload")) == BodyChoice(10)


def test_a_rule_for_get_is_one_for_head():
    section = DeadlineSettings(rules=[{"path": "/", "methods": "get", "timeout_s": 1}])
    made = section.make_deadlines()
    found = [made.timeouts.rule_for(http_scope("/", method=name)) for name in ("HEAD", "POST")]
    assert found == [TimeoutChoice(1_000_000), None]


def test_what_is_exempt_is_so_before_any_rule():
    section = DeadlineSettings(
        exempt="/health", timeout_s=1, rules=[{"path": "*", "timeout_s": 2, "body_bytes_max": 1}]
    )
    made = section.make_deadlines()
    assert made.timeouts.rule_for(http_scope("/health")).is_exempt
    assert made.bodies.rule_for(http_scope("/health")).is_exempt
    assert made.timeouts.rule_for(http_scope("/x")) == TimeoutChoice(2_000_000)


@pytest.mark.parametrize(
    ("layer", "settings", "words"),
    [
        (DeadlineMiddleware, {"body_bytes_max": 1}, "only RequestLimitsMiddleware does that"),
        (DeadlineMiddleware, {"enabled": True}, "only install"),
        (DeadlineMiddleware, {"timeouts": 1}, "timeout_s"),
        (RequestLimitsMiddleware, {"timeout_s": 1}, "only DeadlineMiddleware does that"),
        (RequestLimitsMiddleware, {"body_bytes_max": "many"}, "body_bytes_max"),
    ],
)
def test_a_layer_names_the_argument_that_is_wrong(layer, settings, words):
    with pytest.raises(SettingsError, match=words):
        layer(app, **settings)


@pytest.mark.parametrize("layer", [DeadlineMiddleware, RequestLimitsMiddleware])
def test_a_layer_takes_what_exists_or_settings_never_both(layer):
    made = DeadlineSettings().make_deadlines()
    assert layer(app, made).deadlines is made
    with pytest.raises(TypeError):
        layer(app, made, exempt="/a")
    with pytest.raises(TypeError):
        layer(app, DeadlineSettings())


class Service:
    def endpoint(self):
        """A bound method has no attributes of its own."""


@pytest.mark.parametrize("mark", [timeout(1), body_limit(1)])
def test_a_mark_cannot_stand_on_a_bound_method(mark):
    with pytest.raises(TypeError, match="decorate the function"):
        mark(Service().endpoint)


def test_a_mark_says_what_it_is_for():
    with pytest.raises(ValueError, match="longer than nothing"):
        timeout(0)
    with pytest.raises(ValueError, match="no bytes or more"):
        body_limit(-1)


@pytest.mark.parametrize(
    ("mark", "error", "words"),
    [
        pytest.param(lambda: timeout(print), TypeError, r"@timeout\(5\)", id="no brackets"),
        pytest.param(lambda: timeout("5"), TypeError, r"@timeout\(5\)", id="a text"),
        pytest.param(lambda: timeout(float("inf")), ValueError, "None is", id="for ever"),
        pytest.param(lambda: timeout(float("nan")), ValueError, "None is", id="no number"),
        pytest.param(
            lambda: timeout(1, covers="body"), ValueError, "head or total", id="covers what is not"
        ),
        pytest.param(
            lambda: body_limit(print), TypeError, r"@body_limit\(1000\)", id="no brackets here"
        ),
        pytest.param(lambda: body_limit(1.5), TypeError, "its bytes", id="half a byte"),
    ],
)
def test_a_mark_that_means_nothing_is_refused_where_it_stands(mark, error, words):
    with pytest.raises(error, match=words):
        mark()


def test_marks_are_obeyed_once_the_endpoints_are_known():
    @timeout(2.5, covers="total")
    @body_limit(100)
    def endpoint():
        """Marked."""

    made = DeadlineSettings(rules=[{"path": "/ruled", "timeout_s": 9}]).make_deadlines()
    scope = http_scope("/a")
    assert made.timeouts.rule_for(scope) is None
    made.read_endpoints(lambda _: endpoint)
    assert made.timeouts.rule_for(scope) == TimeoutChoice(2_500_000, "total")
    assert made.bodies.rule_for(scope) == BodyChoice(100)
    assert made.timeouts.rule_for(http_scope("/ruled")) == TimeoutChoice(9_000_000)
