"""What settings mean for the engine, the driver and each connection."""

import pytest

from perf_middleware.database.engine_options import (
    PoolOptions,
    SessionOptions,
    SqliteOptions,
    asyncpg_arguments,
    engine_arguments,
    set_config_statement,
    transaction_parameters,
)
from perf_middleware.database.urls import read_url

FULL = SessionOptions(
    application_name="shop",
    time_zone="UTC",
    work_mem="16MB",
    statement_s=1.5,
    lock_s=0.0001,
    further={"search_path": "app"},
)


def test_parameters_have_postgresqls_names_and_times_in_its_unit():
    assert FULL.parameters() == {
        "application_name": "shop",
        "TimeZone": "UTC",
        "work_mem": "16MB",
        "statement_timeout": "1500",
        "lock_timeout": "1",  # 0 would be no limit at all
        "search_path": "app",
    }
    assert SessionOptions().parameters() == {}


def test_straight_to_the_server_all_is_said_once():
    arguments = asyncpg_arguments(PoolOptions(connect_s=2), FULL, behind_pgbouncer=False)
    assert arguments == {
        "timeout": 2,
        "command_timeout": 3.5,  # later than the server's own limit
        "server_settings": FULL.parameters(),
    }
    assert "command_timeout" not in asyncpg_arguments(
        PoolOptions(), SessionOptions(), behind_pgbouncer=False
    )
    assert transaction_parameters(FULL, behind_pgbouncer=False) == {}


def test_through_pgbouncer_nothing_is_prepared_and_parameters_are_said_in_each_transaction():
    arguments = asyncpg_arguments(PoolOptions(), FULL, behind_pgbouncer=True)
    assert arguments["server_settings"] == {"application_name": "shop", "TimeZone": "UTC"}
    assert arguments["statement_cache_size"] == arguments["prepared_statement_cache_size"] == 0
    assert arguments["prepared_statement_name_func"]() == ""
    left = transaction_parameters(FULL, behind_pgbouncer=True)
    assert {**left, **arguments["server_settings"]} == FULL.parameters()


def test_a_value_stays_a_value_in_the_statement():
    assert set_config_statement({"app.it": "it's", "b": "1"}) == (
        "SELECT set_config('app.it', 'it''s', true), set_config('b', '1', true)"
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param(
            "postgresql://db/app", (7, 2, 60.0, True), id="PostgreSQL as the settings say"
        ),
        pytest.param("sqlite:///a.db", (7, 2, -1, False), id="a file does not go stale"),
        pytest.param("sqlite://", (1, 0, -1, False), id="memory has one connection"),
    ],
)
def test_the_pool_of(url, expected):
    arguments = engine_arguments(read_url(url), PoolOptions(size=7, overflow_max=2, recycle_s=60.0))
    names = ("pool_size", "max_overflow", "pool_recycle", "pool_pre_ping")
    assert tuple(arguments[name] for name in names) == expected


def test_sqlite_waits_before_it_changes_anything():
    assert SqliteOptions(busy_s=2).pragmas(in_memory=False) == (
        "PRAGMA busy_timeout = 2000",
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = NORMAL",
        "PRAGMA foreign_keys = ON",
    )
    bare = SqliteOptions(wal=False, foreign_keys=False, read_only=True)
    assert bare.pragmas(in_memory=True) == ("PRAGMA busy_timeout = 5000", "PRAGMA query_only = ON")
