"""Settings of the rate limit: texts, tables, the environment, and what is wrong with them."""

import pytest
from pydantic import ValidationError

from perf_middleware.errors import SettingsError
from perf_middleware.limits.rate.middleware import RateLimitMiddleware
from perf_middleware.limits.rate.runtime import RateLimit
from perf_middleware.limits.rate.settings import QuotaSetting, RateLimitSettings
from perf_middleware.limits.settings import CallersSettings
from perf_middleware.probe_paths import PROBE_PATHS
from perf_middleware.settings import Settings
from tests.driving import get
from tests.limits.rate.rate_stage import App


def names_of(settings):
    return list(settings.make_rate_limit().status()["quotas"])


def test_nothing_is_limited_by_default():
    settings = RateLimitSettings()
    assert settings.enabled
    assert names_of(settings) == []
    assert settings.exempt_paths == PROBE_PATHS


@pytest.mark.parametrize(
    "quotas",
    ["100/minute", ["100/minute"], {"limit": "100/minute"}, [QuotaSetting(limit="100/minute")]],
)
def test_a_quota_is_a_text_or_a_table_alone_or_in_a_list(quotas):
    settings = RateLimitSettings(quotas=quotas)
    assert [str(quota.limit) for quota in settings.quotas] == ["100/minute"]


def test_quotas_without_a_name_get_one_each():
    settings = RateLimitSettings(
        quotas=["100/minute", "5/second", {"limit": "9/day", "name": "daily"}, "5/second"],
        rules=[{"path": "/a", "quotas": ["1/s", "1/m"]}, {"path": "/b", "quotas": "daily"}],
    )
    assert names_of(settings) == [
        "default", "5/second", "daily", "5/second 5/second", "/a", "/a 1/minute",
    ]  # fmt: skip


class Shaped(Settings):
    ratelimit: RateLimitSettings = RateLimitSettings()
    callers: CallersSettings = CallersSettings()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (
            '["100/minute", {"name": "daily", "limit": "10000/day", "key": "header:x-api-key"}]',
            ["default", "daily"],
        ),
        ('["100/minute"]', ["default"]),
        ("100/minute", ["default"]),
        ("100/minute, 5/second", ["default", "5/second"]),
        ("", []),
    ],
)
def test_quotas_are_read_from_the_environment(nothing_set, monkeypatch, text, names):
    monkeypatch.setenv("PERFORMANCE_RATELIMIT_QUOTAS", text)
    assert names_of(Shaped().ratelimit) == names


def test_rules_and_callers_are_read_from_the_environment(nothing_set, monkeypatch):
    rules = '[{"path": "/login", "methods": "POST", "quotas": ["5/minute", "default"]}]'
    monkeypatch.setenv("PERFORMANCE_RATELIMIT_RULES", rules)
    monkeypatch.setenv("PERFORMANCE_RATELIMIT_QUOTAS", '["100/minute"]')
    monkeypatch.setenv("PERFORMANCE_CALLERS_TRUSTED_PROXIES", "10.0.0.0/8, unix")
    settings = Shaped()
    assert names_of(settings.ratelimit) == ["default", "POST /login"]
    assert settings.callers.trusted_proxies == ("10.0.0.0/8", "unix")
    assert settings.effective()


def test_quotas_are_read_from_a_file(nothing_set, monkeypatch, tmp_path):
    file = tmp_path / "perf.toml"
    file.write_text(
        '[ratelimit]\nquotas = ["100/minute", { limit = "10/s", name = "quick" }]\n'
        '[[ratelimit.rules]]\npath = "/a"\nquotas = ["1/s"]\n'
    )
    monkeypatch.setenv("PERFORMANCE_CONFIG", str(file))
    assert names_of(Shaped().ratelimit) == ["default", "quick", "/a"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("RATELIMIT_QUOTAS", '["100/fortnight"]', "is no limit: write 100/minute"),
        ("RATELIMIT_QUOTAS", '[{"limt": "1/s"}]', "limt"),
        ("RATELIMIT_QUOTAS", '["1/s", {"limit": "2/s"}', "broken JSON: Expecting ',' delimiter"),
        ("RATELIMIT_QUOTAS", "[100]", "a quota is a text such as 100/minute"),
        ("RATELIMIT_RULES", '[{"path": "/a", "quotas": [{"limit": "x"}]}]', "no limit"),
        ("RATELIMIT_RULES", '[{"path": "/a", "quotas": [{"limt": "1/s"}]}]', "limt"),
        ("CALLERS_TRUSTED_PROXIES", "10.0.0.1/8", "has host bits: write 10.0.0.0/8"),
    ],
)
def test_what_is_wrong_in_the_environment_is_told_by_its_name(
    nothing_set, monkeypatch, name, text, says
):
    monkeypatch.setenv(f"PERFORMANCE_{name}", text)
    with pytest.raises(SettingsError) as raised:
        Shaped()
    assert says in str(raised.value)
    assert f"PERFORMANCE_{name}" in str(raised.value)


def test_one_table_in_the_environment_is_one_quota(nothing_set, monkeypatch):
    monkeypatch.setenv("PERFORMANCE_RATELIMIT_QUOTAS", '{"limit": "5/minute", "name": "one"}')
    assert names_of(Shaped().ratelimit) == ["one"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"quotas": ["100/fortnight"]}, "'100/fortnight' is no limit: write 100/minute"),
        ({"quotas": [{"limit": "1/s", "key": "ip"}]}, "'ip' is no key: write client, global"),
        ({"quotas": [{"limit": "1/s", "name": "all"}]}, "name"),
        ({"quotas": [{"limit": "1/s", "name": "größe"}]}, "printable ASCII"),
        ({"quotas": [{"limit": "1/s", "when_down": "shut"}]}, "when_down"),
        ({"quotas": [{"limt": "1/s"}]}, "limt"),
        ({"quotas": ["1/day;burst=1000000"]}, "would be full again after more than 10000 days"),
        ({"rules": [{"path": "/a", "quotas": ["0/minute"]}]}, "are at least 1"),
        ({"rules": [{"path": "/a", "quotas": ["1/day;burst=1000000"]}]}, "full again"),
        ({"rules": [{"path": "login"}]}, "does not start with /"),
        ({"rules": [{"path": "/a", "exempt": True, "cost": 2}]}, "is exempt"),
        ({"exempt_paths": ["health"]}, "does not start with /"),
        ({"exempt": ["10.0.0.1/8"]}, "host bits"),
        ({"entries_max": 0}, "entries_max"),
    ],
)
def test_a_wrong_setting_fails_when_it_is_made(settings, says):
    with pytest.raises(ValidationError) as raised:
        RateLimitSettings(**settings)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"quotas": ["1/s"], "rules": [{"path": "/a", "quotas": ["daily"]}]},
            "/a names the quota 'daily', which is none of ratelimit.quotas: default",
        ),
        (
            {"quotas": ["10/minute"], "rules": [{"path": "/a", "cost": 11}]},
            "/a has a cost of 11, and the quota 'default' a burst of 10: no request would ever",
        ),
        (
            {"quotas": [{"limit": "1/s", "name": "a"}, {"limit": "2/s", "name": "a"}]},
            "two quotas are called 'a'",
        ),
    ],
)
def test_settings_that_contradict_each_other_fail_when_it_is_made(settings, says):
    with pytest.raises(SettingsError) as raised:
        RateLimitSettings(**settings).make_rate_limit()
    assert says in str(raised.value)


# --- standing alone -----------------------------------------------------------------------------


def test_a_layer_that_stands_alone_takes_settings_by_name():
    layer = RateLimitMiddleware(App(), quotas="1/minute", trusted_proxies=["192.0.2.1"])
    headers = [("x-forwarded-for", "198.51.100.1")]
    assert get(layer, headers=headers).status == 200
    assert get(layer, headers=headers).status == 429
    assert get(layer, headers=[("x-forwarded-for", "198.51.100.2")]).status == 200
    assert get(layer, "/health").headers == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"quotas": ["1/fortnight"]}, "no limit"),
        ({"quota": ["1/s"]}, "quota"),
        ({"trusted_proxies": ["proxy"]}, "no network"),
        ({"enabled": False}, "only install can do that"),
    ],
)
def test_a_wrong_argument_is_told(arguments, says):
    with pytest.raises(SettingsError) as raised:
        RateLimitMiddleware(App(), **arguments)
    assert says in str(raised.value)
    assert "RateLimitMiddleware" in str(raised.value)


def test_a_layer_takes_a_rate_limit_or_settings():
    rate = RateLimit()
    assert RateLimitMiddleware(App(), rate).rate is rate
    with pytest.raises(TypeError, match="takes no quotas"):
        RateLimitMiddleware(App(), rate, quotas=["1/s"])
    with pytest.raises(TypeError, match="not a str"):
        RateLimitMiddleware(App(), "1/s")


def tenant(scope):
    return dict(scope["headers"]).get(b"x-tenant")


def test_a_key_may_be_a_function_of_ones_own():
    layer = RateLimitMiddleware(App(), quotas=[{"limit": "1/minute", "key": tenant}])
    asked = [("x-tenant", "a")], [("x-tenant", "b")], [("x-tenant", "a")], [], []
    statuses = [get(layer, "/", headers=headers).status for headers in asked]
    assert statuses == [200, 200, 429, 200, 200]


def test_a_function_is_told_by_its_name():
    settings = Settings(ratelimit={"quotas": [{"limit": "1/minute", "key": tenant}]})
    (told,) = [each.value for each in settings.effective() if each.key == "ratelimit.quotas"]
    assert told[0]["key"] == "tenant"


def test_a_key_that_waits_is_refused():
    async def waits(scope):
        return "key"

    with pytest.raises(SettingsError, match="a plain function, not async"):
        Settings(ratelimit={"quotas": [{"limit": "1/minute", "key": waits}]})
