"""Settings of the database: `PERFORMANCE_DATABASE_*`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, model_validator

from perf_middleware.database.engine_options import PoolOptions, SessionOptions, SqliteOptions
from perf_middleware.database.urls import read_url
from perf_middleware.section import Section

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.clock import Clock
    from perf_middleware.database.retry.runtime import Retry
    from perf_middleware.database.runtime import Database
    from perf_middleware.database.statements import StatementWatch

MAIN: Final = "main"
REPLICA: Final = "replica"


def _checked(url: SecretStr) -> SecretStr:
    read_url(url.get_secret_value())
    return url


def _no_control_characters(text: str) -> str:
    if re.search(r"[\x00-\x1f]", text):
        raise ValueError("must have no control characters")
    return text


Url: TypeAlias = Annotated[SecretStr, AfterValidator(_checked)]
Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Parameter: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?$")
]
Text: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=200), AfterValidator(_no_control_characters)
]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=86_400)]


class DatabaseSettings(Section):
    """The app's database.  Without a URL there is none, and an engine of its own can be watched."""

    url: Url | None = Field(
        default=None,
        description="postgresql://user:password@host:5432/database, sqlite:///file.db, or "
        "sqlite:// in memory; null: no database.",
    )
    replica_url: Url | None = Field(
        default=None, description='A copy to read from: `session("replica")`, read-only.'
    )
    databases: dict[Name, Url] = Field(
        default={}, max_length=20, description="Further databases: name and URL."
    )
    required: bool = Field(
        default=True,
        description="Do not start while a database does not answer; else start and go on trying.",
    )
    pool_size: int = Field(
        default=10, ge=1, le=1_000, description="Connections that are kept, each database."
    )
    pool_overflow_max: int = Field(
        default=5, ge=0, le=1_000, description="Connections beyond them, closed when given back."
    )
    pool_wait_s: float = Field(
        default=5.0, gt=0, le=600,
        description="How long a request waits for a connection before it is answered with 503; "
        "never longer than its deadline.",
    )  # fmt: skip
    pre_ping: bool = Field(
        default=True, description="Ask a connection whether it lives before it is lent."
    )
    recycle_s: Seconds | None = Field(
        default=1800.0, description="Replace connections that are older; null: never."
    )
    connect_s: float = Field(
        default=5.0, gt=0, le=600, description="How long connecting may take, seconds."
    )
    statement_s: Seconds | None = Field(
        default=30.0,
        description="PostgreSQL ends a statement that takes longer, seconds; null: as its server.",
    )
    lock_s: Seconds | None = Field(
        default=None, description="How long a statement waits for a lock; null: as the server."
    )
    idle_in_transaction_s: Seconds | None = Field(
        default=60.0,
        description="PostgreSQL ends a session that does nothing within a transaction for so long.",
    )
    application_name: Text | None = Field(
        default=None, description="Shown in pg_stat_activity; null: the service's name."
    )
    time_zone: Text | None = Field(
        default=None, description="Of sessions, as UTC; null: as the server."
    )
    work_mem: Annotated[str, StringConstraints(pattern=r"^[0-9]+(kB|MB|GB)$")] | None = Field(
        default=None, description="Memory of a sort or hash, as 16MB; null: as the server."
    )
    session_parameters: dict[Parameter, Text] = Field(
        default={}, max_length=50, description="Further parameters of PostgreSQL's sessions."
    )
    pgbouncer: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether a pooler stands between that gives each transaction another server "
        "connection; auto: found out at the start.",
    )
    sqlite_busy_s: float = Field(
        default=5.0, ge=0, le=600, description="How long SQLite waits for another's lock."
    )
    sqlite_wal: bool = Field(
        default=True, description="Write-ahead log: readers and a writer at once."
    )
    sqlite_foreign_keys: bool = Field(default=True, description="Let SQLite keep foreign keys.")
    finish_s: float = Field(
        default=5.0, gt=0, le=60,
        description="How long a commit, or a rollback and the giving back, may go on after the "
        "request was cancelled.",
    )  # fmt: skip
    stream_guard: bool = Field(
        default=True,
        description="Give idle connections back before a response streams; its session takes one "
        "again when it needs it.",
    )
    held_s_told: Seconds | None = Field(
        default=10.0,
        description="A connection that is held longer is told in the log, with the route and the "
        "line that took it; null: never.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> DatabaseSettings:
        if self.url is None and (self.replica_url is not None or self.databases):
            raise ValueError("`replica_url` and `databases` need a `url`: it is not set")
        for name in (MAIN, REPLICA):
            if name in self.databases:
                raise ValueError(f"`databases` has {name!r}, which is a name of ours")
        return self

    def urls(self) -> dict[str, str]:
        """The URLs by name, the main database first; they hold secrets."""
        if self.url is None:
            return {}
        named = {MAIN: self.url}
        if self.replica_url is not None:
            named[REPLICA] = self.replica_url
        return {name: url.get_secret_value() for name, url in {**named, **self.databases}.items()}

    def pool_options(self) -> PoolOptions:
        """How many connections, and their times."""
        return PoolOptions(
            size=self.pool_size,
            overflow_max=self.pool_overflow_max,
            pool_wait_s=self.pool_wait_s,
            connect_s=self.connect_s,
            recycle_s=self.recycle_s,
            pre_ping=self.pre_ping,
        )

    def session_options(self, service: str = "app") -> SessionOptions:
        """What holds for each session on PostgreSQL."""
        return SessionOptions(
            application_name=self.application_name or service,
            time_zone=self.time_zone,
            work_mem=self.work_mem,
            statement_s=self.statement_s,
            lock_s=self.lock_s,
            idle_in_transaction_s=self.idle_in_transaction_s,
            further=self.session_parameters,
        )

    def sqlite_options(self) -> SqliteOptions:
        """What holds for each connection to SQLite."""
        return SqliteOptions(
            busy_s=self.sqlite_busy_s,
            wal=self.sqlite_wal,
            foreign_keys=self.sqlite_foreign_keys,
        )

    def make_database(
        self,
        service: str = "app",
        *,
        route_of: Callable[[], str | None] | None = None,
        left_by: Callable[[], str | None] | None = None,
        remaining_us: Callable[[], int | None] | None = None,
        statements: StatementWatch | None = None,
        make_retry: Callable[..., Retry] | None = None,
        clock: Clock | None = None,
    ) -> Database:
        """The database of one app with these settings, not open yet.

        `route_of`: the template of the request that runs; `left_by`: of the one whose task goes on
        after it; `remaining_us`: what is left of its
        deadline, None without one; `statements`: who counts what is asked; `make_retry`: what makes
        the retries of each.
        """
        from perf_middleware.clock import monotonic_us
        from perf_middleware.database.runtime import Database

        return Database(
            self.urls(),
            pool=self.pool_options(),
            session=self.session_options(service),
            sqlite=self.sqlite_options(),
            pgbouncer=self.pgbouncer,
            required=self.required,
            finish_s=self.finish_s,
            held_s_told=self.held_s_told,
            stream_guard=self.stream_guard,
            route_of=route_of,
            left_by=left_by,
            remaining_us=remaining_us,
            statements=statements,
            make_retry=make_retry,
            clock=clock or monotonic_us,
        )
