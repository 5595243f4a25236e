"""What holds for a request: rules and marks, looked up once for each path, method and host."""

import pytest

from perf_middleware.limits.rules import KEY_CHARS_MAX, PATHS_MAX, RouteRules
from perf_middleware.path_patterns import PathPattern
from tests.driving import http_scope

ATTRIBUTE = "__a_mark__"


def marked(value):
    def endpoint():
        """Carries a mark."""

    setattr(endpoint, ATTRIBUTE, value)
    return endpoint


class Ahead:
    """Counts how often it is asked; the endpoint is of this host and kind."""

    def __init__(self):
        self.asked = 0

    def __call__(self, scope):
        self.asked += 1
        host = dict(scope["headers"]).get(b"host", b"").decode()
        return marked(f"{scope['type']} {host}")


def rules_with(ahead, *, is_by_host=False):
    rules = RouteRules(attribute=ATTRIBUTE)
    rules.read_endpoints(ahead, is_by_host=is_by_host)
    return rules


def websocket_scope(path):
    scope = {**http_scope(path), "type": "websocket"}
    del scope["method"]
    return scope


def test_an_answer_is_remembered_by_path_and_method():
    rules = rules_with(ahead := Ahead())
    for _ in range(3):
        assert rules.rule_for(http_scope("/a")) == "http "
    assert ahead.asked == 1


def test_a_websocket_is_not_taken_for_a_get():
    rules = rules_with(Ahead())
    found = [rules.rule_for(scope("/a")) for scope in (http_scope, websocket_scope, http_scope)]
    assert found == ["http ", "websocket ", "http "]


@pytest.mark.parametrize(
    ("methods", "found"),
    [({"GET"}, "rule"), ({"HEAD"}, "rule"), ({"POST"}, None), (set("X"), None), (None, "rule")],
)
def test_a_rule_for_get_is_not_passed_by_head(methods, found):
    rule = (PathPattern.of("/a"), None if methods is None else frozenset(methods), "rule")
    assert RouteRules([rule]).rule_for(http_scope("/a", method="HEAD")) == found


def test_a_rule_for_get_holds_for_a_websocket():
    rules = RouteRules([(PathPattern.of("/a"), frozenset({"GET"}), "rule")])
    assert rules.rule_for(websocket_scope("/a")) == "rule"


@pytest.mark.parametrize(("is_by_host", "found"), [(True, "http b.test"), (False, "http a.test")])
def test_hosts_are_told_apart_only_where_the_app_does(is_by_host, found):
    rules = rules_with(Ahead(), is_by_host=is_by_host)
    rules.rule_for(http_scope("/", headers=[("host", "a.test")]))
    assert rules.rule_for(http_scope("/", headers=[("host", "b.test")])) == found


@pytest.mark.parametrize(
    "scope",
    [
        pytest.param(http_scope("/" + "a" * KEY_CHARS_MAX), id="path"),
        pytest.param(http_scope("/", method="A" * KEY_CHARS_MAX), id="method"),
        pytest.param(http_scope("/", headers=[("host", "a" * KEY_CHARS_MAX)]), id="host"),
    ],
)
def test_what_a_client_makes_long_is_not_kept(scope):
    rules = rules_with(ahead := Ahead(), is_by_host=True)
    for _ in range(2):
        rules.rule_for(scope)
    assert ahead.asked == 2
    assert not rules._known


def test_no_more_paths_are_kept_than_the_bound():
    rules = rules_with(Ahead())
    for number in range(PATHS_MAX + 5):
        rules.rule_for(http_scope(f"/{number}"))
    assert 0 < len(rules._known) <= PATHS_MAX


@pytest.mark.parametrize(
    ("rules", "literals"),
    [
        pytest.param([], {}, id="none"),
        pytest.param([("/a", None, 1), ("/b", None, 2), ("/a", None, 3)], {"/a": 1, "/b": 2},
                     id="fixed paths, the first of each"),
        pytest.param([("/a", None, 1), ("/b/*", None, 2)], None, id="a pattern"),
        pytest.param([("/a", frozenset({"POST"}), 1)], None, id="methods"),
    ],
)  # fmt: skip
def test_rules_of_fixed_paths_alone_are_found_by_the_path(rules, literals):
    made = RouteRules([(PathPattern.of(path), methods, rule) for path, methods, rule in rules])
    assert made.literals == literals


def test_with_marks_a_path_alone_says_nothing():
    assert rules_with(Ahead()).literals is None
