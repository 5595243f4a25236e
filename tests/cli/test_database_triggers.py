"""`perf-middleware database triggers`: the SQL, and what it says when it cannot be applied."""

import asyncio
from urllib.parse import urlsplit

import asyncpg
import pytest
from typer.testing import CliRunner

from perf_middleware.cli.commands import commands
from perf_middleware.database.outside.triggers import Triggers
from tests.database.real_postgres import postgres


def asked(*arguments):
    return CliRunner().invoke(commands(), ["database", "triggers", *arguments])


def test_without_a_database_the_sql_is_printed(monkeypatch):
    monkeypatch.setenv("PERFORMANCE_SERVICE", "shop")
    assert asked().stdout == Triggers(namespace="shop").sql() + "\n"
    assert asked("items", "--drop").stdout == (
        Triggers(namespace="shop", tables=("items",)).drop_sql() + "\n"
    )


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        pytest.param([], "needs PostgreSQL", id="no database"),
        pytest.param(["--url", "sqlite://"], "must begin with postgresql", id="another one"),
        pytest.param(["--url", "secret"], "must begin with postgresql", id="no URL"),
        pytest.param(
            ["--url", "postgresql://u:secret@127.0.0.1:1/x"], "postgresql://127.0.0.1:1/x: ",
            id="nobody there",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_applied_is_one_sentence(arguments, why):
    result = asked("--apply", *arguments)
    assert result.exit_code == 2
    assert why in result.stderr
    assert "secret" not in result.output


def test_a_name_that_no_table_has_is_one_sentence():
    """A fixed bug: it was a traceback."""
    result = asked("ite\x01ms")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "has a control character" in result.stderr


def test_applied_it_says_what_is_not_heard(monkeypatch):
    with postgres() as url:
        name = "perf_triggers"

        async def ask(where, statement):
            connection = await asyncpg.connect(where)
            await connection.execute(statement)
            await connection.close()

        own = urlsplit(url)._replace(path=f"/{name}").geturl()
        asyncio.run(ask(url, f"drop database if exists {name} with (force)"))
        asyncio.run(ask(url, f"create database {name}"))
        try:
            asyncio.run(ask(own, "create table items (id int); create table orders (id int)"))
            monkeypatch.setenv("PERFORMANCE_DATABASE_URL", own)
            assert asked("items", "--apply").stdout == "done\n"
            assert asked("--apply").stdout == "done\n"
            assert asked("--apply", "--drop").stdout == (
                "done; not heard are public.items, public.orders\n"
            )
            assert '"no such" is no table' in asked("--apply", '"no such"').stderr
        finally:
            asyncio.run(ask(url, f"drop database {name} with (force)"))
