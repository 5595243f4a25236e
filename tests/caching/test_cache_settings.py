"""Settings of the cache: what is refused, and that it is said which and what would be right."""

import json

import pytest

from perf_middleware import (
    CacheRule,
    ConfigurationError,
    Settings,
    SettingsError,
    cache_response,
    install,
)
from tests.metrics.wires import hello

pytestmark = pytest.mark.usefixtures("nothing_set")


def problems_of(**cache):
    with pytest.raises(SettingsError) as refused:
        Settings(cache=cache)
    return str(refused.value)


@pytest.mark.parametrize(
    ("cache", "key", "told"),
    [
        ({"bytes_max": 10}, "cache.bytes_max", "65536"),
        ({"bytes_max": "much"}, "cache.bytes_max", "much"),
        ({"entries_max": 0}, "cache.entries_max", "1"),
        ({"entry_bytes_max": -1}, "cache.entry_bytes_max", "0"),
        ({"bytes_max": 100_000, "entry_bytes_max": 200_000}, "cache", "larger than bytes_max"),
        ({"position": "middle"}, "cache.position", "inner"),
        ({"authorization": "everyone"}, "cache.authorization", "rfc9111"),
        ({"default_ttl": -1}, "cache.default_ttl", "0"),
        ({"default_ttl": 10**9}, "cache.default_ttl", "315360000"),
        ({"collapse_wait_s": 0}, "cache.collapse_wait_s", "0"),
        ({"collapse_wait_s": 1e9}, "cache.collapse_wait_s", "300"),
        ({"waiting_max": -1}, "cache.waiting_max", "0"),
        ({"refresh_max": -1}, "cache.refresh_max", "0"),
        ({"refresh_timeout_s": 0}, "cache.refresh_timeout_s", "0"),
        ({"early_refresh": 1_000}, "cache.early_refresh", "100"),
        ({"targeted": ["cache control"]}, "cache.targeted", "cache control"),
        ({"ttl": 5}, "cache.ttl", "default_ttl"),
        ({"default_ttl": True}, "cache.default_ttl", "no numbers of seconds"),
        ({"rules": [{"path": "/a", "ttl": True}]}, "cache.rules", "item 1: ttl: true and false"),
        ({"rules": [{"path": "/a?b=c"}]}, "cache.rules", "item 1: '/a?b=c' has a query"),
        ({"rules": [{"ttl": 5}]}, "cache.rules", "item 1 needs path: Pattern"),
        ({"rules": [{"path": "a"}]}, "cache.rules", "does not start with /"),
        ({"rules": [{"path": "/{a"}]}, "cache.rules", "brace"),
        (
            {"rules": [{"path": "/a", "ttl": 1.5}]},
            "cache.rules",
            "item 1: ttl must be a whole number from 0 to 315360000 or none, not 1.5",
        ),
        (
            {"rules": [{"path": "/a", "tll": 1}]},
            "cache.rules",
            "item 1: tll is not a setting of it; did you mean ttl?",
        ),
        (
            {"rules": [{"path": "/a"}, {"path": "/b", "vary": ["a b"]}]},
            "cache.rules",
            "item 2: vary must be a list of texts",
        ),
        (
            {"rules": [{"path": "/a", "shared": True, "private_by": ["cookie"]}]},
            "cache.rules",
            "contradict",
        ),
        ({"rules": [{"path": "/a", "private_by": ["co okie"]}]}, "cache.rules", "header name"),
        (
            {"rules": [{"path": "/a", "vary": "*"}]},
            "cache.rules",
            "item 1: /a: '*' is no header name",
        ),
        (
            {"rules": [{"path": "/a", "ttl": -1}, {"path": 5}]},
            "cache.rules",
            "item 2: path must be text",
        ),
        ({"rules": [{"path": "/a", "tell_clients": "a\r\nb: c"}]}, "cache.rules", "header value"),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)
def test_a_wrong_setting_is_named_with_what_would_be_right(cache, key, told):
    said = problems_of(**cache)
    section, _, name = key.partition(".")
    place = f"Settings({section}={{{name!r}: …}})"
    assert said.startswith(f"invalid settings:\n  - {place if name else section}")
    assert told in said


def test_rules_in_the_environment_that_are_no_json_are_named(monkeypatch):
    monkeypatch.setenv("PERFORMANCE_CACHE_RULES", "[{'path': '/a'}]")
    with pytest.raises(ConfigurationError, match="PERFORMANCE_CACHE_RULES"):
        Settings()


def test_every_option_of_the_cache_has_a_setting():
    from dataclasses import fields

    perf = install(
        hello,
        Settings(
            cache={
                "entry_bytes_max": 1_000,
                "default_ttl": 7,
                "heuristic": True,
                "targeted": ["My-CDN"],
                "request_directives": False,
                "authorization": "rfc9111",
                "credentials": ["X-Member"],
                "ignored_cookies": "_ga*",
                "status_header": False,
                "collapse": False,
                "collapse_wait_s": 1.5,
                "waiting_max": 3,
                "refresh_max": 2,
                "refresh_timeout_s": 2.5,
                "early_refresh": 0.5,
                "entries_max": 10,
                "bytes_max": 100_000,
            }
        ),
    )
    options = perf.cache.options
    assert options.targeted == (b"my-cdn",)
    assert options.authorization_by_rfc
    assert options.credentials == (b"x-member",)
    assert options.ignored_cookies == ("_ga*",)
    changed = {
        field.name for field in fields(options) if getattr(options, field.name) != field.default
    }
    internal = {"outlive_s", "storing_share_max"}
    assert changed == {field.name for field in fields(options)} - internal
    assert perf.cache.store.bytes_max == 100_000


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"ttl": -1}, "ttl"),
        ({"ttl": 1.5}, "ttl"),
        ({"ttl": "60"}, "ttl"),
        ({"ttl": True}, "ttl"),
        ({"negative_ttl": -1}, "negative_ttl"),
        ({"stale_while_revalidate": None, "stale_if_error": -5}, "stale_if_error"),
        ({"vary": ["a b"]}, "a b"),
        ({"vary": "größe"}, "header name"),
        ({"private_by": ["cookie: session"], "shared": True}, "contradict"),
        ({"private_by": "co okie"}, "header name"),
        ({"tell_clients": "a\nb"}, "header value"),
    ],
)
def test_a_decorator_refuses_what_makes_no_sense_when_it_is_written(arguments, told):
    with pytest.raises(ValueError, match=told):
        cache_response(**arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"tags": [5]}, "tags"),
        ({"tags": None}, "tags"),
        ({"vary": b"accept"}, "vary"),
        ({"query": {"page": 1}}, "query"),
        ({"private_by": 5}, "private_by"),
        ({"key": "tenant"}, "key"),
        ({"tell_clients": 5}, "header value"),
    ],
)
def test_a_decorator_refuses_what_is_of_the_wrong_kind(arguments, told):
    with pytest.raises(TypeError, match=told):
        cache_response(ttl=60, **arguments)


def test_a_decorator_without_its_brackets_says_so():
    with pytest.raises(TypeError, match="needs its brackets"):

        @cache_response
        def endpoint():
            """Never decorated."""


def test_a_bound_method_cannot_carry_a_rule_and_is_told_what_can():
    class Shop:
        def items(self):
            """An endpoint."""

    with pytest.raises(TypeError, match="decorate the function of a method"):
        cache_response(ttl=60)(Shop().items)


def test_the_field_of_an_identity_is_of_any_case_and_the_name_of_a_cookie_is_not():
    rule = CacheRule(path="/a", private_by=["Authorization", "Cookie:ID"])
    assert rule.policy().private_by == ("authorization", "cookie:ID")


def test_a_decorated_function_stays_what_it_is():
    def endpoint(a: int, b: str = "x") -> str:
        """Its words."""

    assert cache_response(ttl=1)(endpoint) is endpoint
