"""Settings of the retries: `PERFORMANCE_RETRY_*`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from perf_middleware.database.retry.budget import MILLI, Backoff, Budget
from perf_middleware.database.retry.runtime import Retry
from perf_middleware.section import Section

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncSession

    from perf_middleware.events import Events

US_PER_S = 1_000_000


class RetrySettings(Section):
    """How often, how soon and how many transactions are tried again: those that
    `perf.database.run` is given.
    """

    attempts_max: int = Field(
        default=4, ge=1, le=20,
        description="Attempts of one unit of work in all; 1: nothing is retried.",
    )  # fmt: skip
    first_s: float = Field(
        default=0.02, ge=0.001, le=10,
        description="The longest wait before the second attempt, seconds; it doubles with each "
        "failure, and each wait is drawn between 0 and it.",
    )  # fmt: skip
    most_s: float = Field(
        default=1.0, ge=0.001, le=60, description="The longest wait before any attempt, seconds."
    )
    tokens_max: int = Field(
        default=20, ge=1, le=10_000,
        description="Retries that may be made without any success between them, in this process; "
        "of conflicts and of lost connections each.",
    )  # fmt: skip
    conflict_ratio: float = Field(
        default=1.0, ge=0, le=1,
        description="Retries after conflicts (serialization, deadlock, SQLite busy) that each "
        "success allows.",
    )  # fmt: skip
    connection_ratio: float = Field(
        default=0.1, ge=0, le=1,
        description="Retries after lost connections that each success allows.",
    )  # fmt: skip

    @model_validator(mode="after")
    def _waits_are_in_order(self) -> RetrySettings:
        if self.most_s < self.first_s:
            raise ValueError("most_s must not be below first_s")
        return self

    def make_retry(
        self,
        *,
        remaining_s: Callable[[], float | None] | None = None,
        events: Events | None = None,
        commit: Callable[[AsyncSession], Awaitable[None]] | None = None,
        database: str = "main",
    ) -> Retry:
        """The retries of one database.

        `remaining_s` of the request in this context, None without.
        """
        tokens_max_milli = self.tokens_max * MILLI
        return Retry(
            backoff=Backoff(
                attempts_max=self.attempts_max,
                first_us=round(self.first_s * US_PER_S),
                most_us=round(self.most_s * US_PER_S),
            ),
            budgets={
                "conflict": Budget(
                    tokens_max_milli=tokens_max_milli,
                    ratio_milli=round(self.conflict_ratio * MILLI),
                ),
                "connection": Budget(
                    tokens_max_milli=tokens_max_milli,
                    ratio_milli=round(self.connection_ratio * MILLI),
                ),
            },
            remaining_s=remaining_s,
            events=events,
            commit=commit,
            database=database,
        )
