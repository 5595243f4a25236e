"""Settings of writes from outside of the app: `PERFORMANCE_OUTSIDE_*`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

from pydantic import AfterValidator, Field, SecretStr, StringConstraints

from perf_middleware.database.outside.triggers import Triggers
from perf_middleware.database.urls import UrlError, read_url
from perf_middleware.section import Section

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.database.outside.runtime import OutsideWrites
    from perf_middleware.database.settings import DatabaseSettings

_PART: Final = r'(?:[A-Za-z_\u0080-\uffff][A-Za-z0-9_$\u0080-\uffff]*|"(?:[^"\x00-\x1f]|"")+")'
NAME_MAX: Final = 63  # of application_name, which PostgreSQL would cut too
_NAME: Final = re.compile(rf"{_PART}(?:\.{_PART})?")


def _checked_url(url: SecretStr) -> SecretStr:
    if read_url(url.get_secret_value()).dialect != "postgresql":
        raise UrlError("must begin with postgresql://: only PostgreSQL tells of writes")
    return url


def _table(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError('is no name of a table: orders, shop.orders, or shop."Odd Name"')
    return name


Url: TypeAlias = Annotated[SecretStr, AfterValidator(_checked_url)]
TableName: TypeAlias = Annotated[str, AfterValidator(_table)]


class OutsideSettings(Section):
    """Writes that do not go through the app's engines: psql, a migration, another service.

    PostgreSQL's triggers tell of them, once they are installed.
    """

    listen: bool = Field(
        default=False,
        description="Listen for them, on one more connection in each process, and purge what was "
        "made of the tables they wrote.",
    )
    url: Url | None = Field(
        default=None,
        description="PostgreSQL itself, where `database.url` leads to a pooler: nobody can listen "
        "through one; null: `database.url`.",
    )
    tables: tuple[TableName, ...] | None = Field(
        default=None, min_length=1, max_length=10_000,
        description='Those with a trigger, as in SQL (orders, shop."Odd Name"); null: all.',
    )  # fmt: skip
    tables_except: tuple[TableName, ...] = Field(
        default=(), max_length=10_000, description="Of them, those without."
    )
    namespace: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = Field(
        default=None,
        description="Of the triggers and of those who listen, `redis.namespace` or `service` by "
        "default; services that share no Redis have different ones.",
    )

    def triggers(self, namespace: str) -> Triggers:
        """The triggers that these settings describe; `namespace` is the default."""
        return Triggers(
            namespace=self.namespace or namespace,
            tables=self.tables,
            tables_except=self.tables_except,
        )

    def url_of(self, database: DatabaseSettings) -> str | None:
        """PostgreSQL's own URL, with its secrets; None where no PostgreSQL is set."""
        given = self.url or database.url
        url = given.get_secret_value() if given is not None else None
        return url if url is not None and read_url(url).dialect == "postgresql" else None

    def make_outside(
        self,
        database: DatabaseSettings,
        *,
        namespace: str,
        service: str = "app",
        shares: Callable[[], bool] | None = None,
    ) -> OutsideWrites:
        """One who listens, not open yet; `shares` as `OutsideWrites` says.

        Raises ValueError where no PostgreSQL is set.
        """
        from perf_middleware.database.outside.runtime import OutsideWrites

        url = self.url_of(database)
        if url is None:
            raise ValueError("needs PostgreSQL: set `database.url` or `outside.url`")
        return OutsideWrites(
            read_url(url),
            triggers=self.triggers(namespace),
            shares=shares,
            application_name=f"{database.application_name or service}: listens"[:NAME_MAX],
            connect_s=database.connect_s,
        )
