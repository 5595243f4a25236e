"""Whose bucket a request draws from."""

import pytest
from starlette.authentication import SimpleUser, UnauthenticatedUser

from perf_middleware.limits.callers import Callers
from perf_middleware.limits.rate.keys import KeySpec, digest, own_key, user_of
from tests.driving import http_scope

CLIENT = b"192.0.2.1"


class Identified:
    is_authenticated = True
    identity = 17


def key(text, *, route="/r", headers=(), **scope):
    made = KeySpec.of(text).key_of(b"q|", Callers(), route)
    return made(http_scope("/", headers=headers, **scope))


@pytest.mark.parametrize(
    ("text", "request_", "expected"),
    [
        ("client", {}, b"q|c" + CLIENT),
        ("global", {}, b"q|g"),
        ("route", {}, b"q|r/r"),
        ("client+route", {}, b"q|c" + CLIENT + b"+r/r"),
        ("header:X-API-Key", {"headers": [("X-Api-Key", "secret")]}, b"q|h" + digest(b"secret")),
        ("header:x-api-key", {}, b"q|a" + CLIENT),
        ("header:x-api-key", {"headers": [("x-api-key", "")]}, b"q|a" + CLIENT),
        (
            "header:x-api-key",
            {"headers": [("x-api-key", "one"), ("x-api-key", "two")]},
            b"q|a" + CLIENT,
        ),
        ("user", {}, b"q|a" + CLIENT),
        ("user", {"user": UnauthenticatedUser()}, b"q|a" + CLIENT),
        ("user", {"user": SimpleUser("ann")}, b"q|u" + digest(b"ann")),
        ("user", {"user": Identified()}, b"q|u" + digest(b"17")),
        ("user", {"user": "ann"}, b"q|u" + digest(b"ann")),
        ("user", {"user": object()}, b"q|a" + CLIENT),
    ],
)
def test_a_key_is_made_of_the_request(text, request_, expected):
    assert key(text, **request_) == expected


def test_no_secret_and_no_long_value_stands_in_a_key():
    made = key("header:authorization", headers=[("authorization", "Bearer secret" * 1_000)])
    assert b"secret" not in made
    assert len(made) < 40
    assert b"ann" not in key("user", user=SimpleUser("ann"))
    assert b"secret" not in own_key(b"q|", "secret")


@pytest.mark.parametrize(
    "text", ["", "ip", "client+", "header:", "header:a b", "client+client", "global+client"]
)
def test_what_names_no_key_is_refused(text):
    with pytest.raises(ValueError, match=r"key|header|twice|global"):
        KeySpec.of(text)


@pytest.mark.parametrize(
    ("text", "values", "request_"),
    [
        ("client", ["192.0.2.1"], {}),
        ("global", [], {}),
        ("client+route", ["192.0.2.1", "/r"], {}),
        ("header:x-api-key", ["secret"], {"headers": [("x-api-key", "secret")]}),
        ("user", ["ann"], {"user": SimpleUser("ann")}),
    ],
)
def test_code_outside_of_requests_names_the_same_bucket(text, values, request_):
    made = KeySpec.of(text).key_for(b"q|", Callers(), values)
    assert made == key(text, **request_)


def test_a_key_of_two_parts_needs_two_values():
    with pytest.raises(ValueError, match="has 2 values, not 1"):
        KeySpec.of("client+route").key_for(b"q|", Callers(), ["192.0.2.1"])


def test_who_is_signed_in_is_asked_gently():
    assert user_of({"user": ""}) is None
    assert user_of({}) is None
