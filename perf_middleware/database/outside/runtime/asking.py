"""What an app asks of the triggers, at `perf.database`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.database.outside.runtime import OutsideWrites


class TriggersAtHand:
    """The part of `Database` that is about writes from outside."""

    outside: OutsideWrites | None = None
    """Who hears of writes that do not go through these engines; None without PostgreSQL."""

    def triggers(self, tables: Sequence[str] | None = None, *, drop: bool = False) -> str:
        """One SQL statement for the triggers that tell of writes from outside; apply it yourself.

        `tables`: others than the settings name, as in SQL; `drop`: the statement that removes them.
        Raises RuntimeError where the database is no PostgreSQL.
        """
        triggers = self._hearing().triggers
        if tables is not None:
            triggers = replace(triggers, tables=tuple(tables))
        return triggers.drop_sql() if drop else triggers.sql()

    async def install_triggers(self) -> tuple[str, ...]:
        """Make the triggers that are missing, now; the tables that are not heard even so.

        Raises OutsideWritesError with what PostgreSQL says, RuntimeError as `triggers`.
        """
        return await self._hearing().install()

    def _hearing(self) -> OutsideWrites:
        if self.outside is None:
            raise RuntimeError("only PostgreSQL tells of writes: set `url` in section `database`")
        return self.outside
