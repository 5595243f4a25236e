"""Who may see the operator endpoints: whoever knows the token."""

import logging
from contextlib import asynccontextmanager

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware import Settings, install
from perf_middleware.dashboard.access import TokenGate
from tests.driving import get, served

pytestmark = pytest.mark.usefixtures("nothing_set")

TOKEN = "s3cret-t0ken"
GATE = TokenGate(TOKEN)


async def app(scope, receive, send):
    """Takes no part in anything."""


@pytest.mark.parametrize(
    ("authorization", "admitted"),
    [
        pytest.param(b"Bearer s3cret-t0ken", True, id="as RFC 6750 has it"),
        pytest.param(b"bearer s3cret-t0ken", True, id="schemes have no case"),
        pytest.param(b"BEARER s3cret-t0ken", True, id="none at all"),
        pytest.param(b"Bearer   s3cret-t0ken", True, id="RFC 9110 §11.4: one or more blanks"),
        pytest.param(b"Bearer s3cret-t0ken ", True, id="a blank at the end"),
        pytest.param(None, False, id="no field"),
        pytest.param(b"", False, id="empty"),
        pytest.param(b" ", False, id="a blank"),
        pytest.param(b"Bearer", False, id="only the scheme"),
        pytest.param(b"Bearer ", False, id="an empty token"),
        pytest.param(b"s3cret-t0ken", False, id="only the token"),
        pytest.param(b" s3cret-t0ken", False, id="an empty scheme"),
        pytest.param(b"Basic s3cret-t0ken", False, id="another scheme"),
        pytest.param(b"Bearers3cret-t0ken", False, id="no blank"),
        pytest.param(b"Bearer\ts3cret-t0ken", False, id="a tab for the blank"),
        pytest.param(b"Bearer: s3cret-t0ken", False, id="a colon"),
        pytest.param(b"Bearer S3CRET-T0KEN", False, id="tokens have case"),
        pytest.param(b"Bearer s3cret-t0ke", False, id="shorter"),
        pytest.param(b"Bearer s3cret-t0kenn", False, id="longer"),
        pytest.param(b"Bearer s3cret t0ken", False, id="a blank inside"),
        pytest.param(b"Bearer s3cret-t0ken, Basic x", False, id="two credentials"),
        pytest.param(b'Bearer token="s3cret-t0ken"', False, id="as a parameter"),
        pytest.param(b"Bearer \xff\xfe\x00", False, id="no text"),
        pytest.param("Bearer s3cret-tökén".encode(), False, id="non-ASCII"),
        pytest.param(b"Bearer " + b"a" * 1_000_000, False, id="very long"),
        pytest.param(b"Bearer " + b"s3cret-t0ken" * 1_000, False, id="very often"),
    ],
)
def test_the_gate_admits_the_token_and_nothing_else(authorization, admitted):
    assert GATE.admits(authorization) is admitted


def test_a_token_of_any_script_may_be_sent_as_utf8():
    assert TokenGate("пароль-123").admits("Bearer пароль-123".encode())


def test_a_gate_without_a_token_cannot_be_made():
    with pytest.raises(ValueError, match="must not be empty"):
        TokenGate("")


@given(st.binary(max_size=64))
def test_no_other_bytes_open_the_gate(authorization):
    scheme, _, given_token = authorization.partition(b" ")
    expected = scheme.lower() == b"bearer" and given_token.strip() == TOKEN.encode()
    assert GATE.admits(authorization) is expected


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64))
def test_every_printable_token_opens_its_own_gate_only(token):
    authorization = b"Bearer " + token.encode()
    assert TokenGate(token).admits(authorization)
    assert not TokenGate(token + "x").admits(authorization)


def test_the_gate_shows_no_token():
    assert TOKEN not in repr(GATE)
    assert not hasattr(GATE, "__dict__")


# --- where the token comes from -----------------------------------------------------------------


def token_lines(caplog) -> list[str]:
    return [
        record.getMessage() for record in caplog.records
        if record.name == "perf_middleware.dashboard"
    ]  # fmt: skip


def run_once(wrapped) -> None:
    async def run():
        async with served(wrapped):
            pass

    anyio.run(run)


def test_a_random_token_is_told_at_every_start_and_never_before(caplog):
    """Tools import an app only to look at it."""
    caplog.set_level(logging.DEBUG)
    perf = install(app)
    perf.describe()
    perf.status()
    get(perf, "/_perf/status")
    assert token_lines(caplog) == []
    run_once(perf)
    (line,) = token_lines(caplog)
    assert "/_perf/status" in line
    assert "PERFORMANCE_DASHBOARD_TOKEN" in line
    assert caplog.records[-1].levelno >= logging.WARNING, "most apps show nothing below"
    token = line.rpartition("Bearer ")[2]
    assert get(perf, "/_perf/status", headers=[("Authorization", f"Bearer {token}")]).status == 200
    run_once(perf)
    assert len(token_lines(caplog)) == 2


@pytest.mark.parametrize(
    ("dashboard", "prefix"),
    [
        pytest.param({"token": TOKEN}, "/_perf", id="from the settings"),
        pytest.param({"token": f" {TOKEN}\n"}, "/_perf", id="read from a file with its last line"),
        pytest.param({"token": TOKEN, "prefix": "/ops"}, "/ops", id="another prefix"),
    ],
)
def test_a_token_of_the_settings_is_never_told(caplog, dashboard, prefix):
    caplog.set_level(logging.DEBUG)
    perf = install(app, Settings(dashboard=dashboard))
    run_once(perf)
    bearer = [("Authorization", f"Bearer {TOKEN}")]
    answer = get(perf, f"{prefix}/status", headers=bearer)
    assert answer.status == 200
    assert token_lines(caplog) == []
    assert TOKEN not in caplog.text
    assert TOKEN.encode() not in answer.body
    assert answer.json()["resources"]["operator endpoints"]["detail"]["token"] == "from settings"


def test_two_services_have_two_random_tokens(caplog):
    for service in ("shop", "mail"):
        run_once(install(app, Settings(service=service)))
    first, second = (line.rpartition("Bearer ")[2] for line in token_lines(caplog))
    assert first != second
    assert min(len(first), len(second)) >= 32, "192 bits"


def test_with_the_dashboard_off_nothing_is_told(caplog):
    run_once(install(app, Settings(dashboard={"enabled": False})))
    assert token_lines(caplog) == []


def test_running_without_a_server_tells_the_token_too(caplog):
    @asynccontextmanager
    async def parent_lifespan(perf):
        async with perf.running():
            yield

    async def run():
        async with parent_lifespan(install(app)):
            assert len(token_lines(caplog)) == 1

    anyio.run(run)
