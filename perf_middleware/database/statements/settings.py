"""Settings of the statements: `PERFORMANCE_STATEMENTS_*`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from perf_middleware.database.statements.runtime import StatementWatch
from perf_middleware.section import Section

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perf_middleware.database.statements.runtime import RequestRecord
    from perf_middleware.events import Events


class StatementSettings(Section):
    """Time, rows and errors by statement fingerprint; values of statements are never kept."""

    enabled: bool = Field(default=True, description="Time every statement of a watched engine.")
    slow_s: float | None = Field(
        default=0.5, gt=0, le=3_600,
        description="Log a statement that takes so long, seconds; null: never.",
    )  # fmt: skip
    log_per_minute_max: int = Field(
        default=30, ge=0, le=10_000,
        description="Lines of slow and of repeated statements, of each kind, in a minute at most.",
    )  # fmt: skip
    repeats: bool = Field(
        default=True,
        description="Look for the same statement repeated from the same place in one request.",
    )
    repeats_min: int = Field(
        default=5, ge=2, le=10_000,
        description="How often it must run in one request to be told.",
    )  # fmt: skip
    sample_every: int = Field(
        default=1, ge=1, le=1_000_000,
        description="One of so many requests is looked through for repeats; time, rows and slow "
        "statements are counted in all.",
    )  # fmt: skip
    allowed_repeats: tuple[str, ...] = Field(
        default=(), max_length=1_000,
        description="Ids of fingerprints that may repeat: the 12 digits in the log line.",
    )  # fmt: skip
    fingerprints_max: int = Field(
        default=300, ge=1, le=10_000,
        description="Fingerprints that are counted apart; later ones are `other`.",
    )  # fmt: skip
    texts_max: int = Field(
        default=2_000, ge=1, le=100_000,
        description="SQL texts whose fingerprint is kept in memory.",
    )  # fmt: skip
    texts_chars_max: int = Field(
        default=4_000_000, ge=10_000, le=1_000_000_000,
        description="Characters of all texts that are kept.",
    )  # fmt: skip
    new_texts_per_s_max: int = Field(
        default=200, ge=1, le=100_000,
        description="New texts that are read in a second; those beyond count as `other`. An app "
        "that writes its values into the text makes a new one each time.",
    )  # fmt: skip

    def make_watch(
        self,
        *,
        current_request: Callable[[], RequestRecord | None] | None = None,
        route_of: Callable[[Any], str] | None = None,
        events: Events | None = None,
        own: Sequence[str] = (),
    ) -> StatementWatch:
        """The watch of one app with these settings.

        `own` are directories that are the app's, where they lie among the installed packages.
        """
        return StatementWatch(
            current_request=current_request,
            route_of=route_of,
            events=events,
            own=own,
            slow_s=self.slow_s,
            log_per_minute_max=self.log_per_minute_max,
            repeats_min=self.repeats_min if self.repeats else None,
            sample_every=self.sample_every,
            allowed_repeats=frozenset(self.allowed_repeats),
            fingerprints_max=self.fingerprints_max,
            texts_max=self.texts_max,
            texts_chars_max=self.texts_chars_max,
            new_texts_per_s_max=self.new_texts_per_s_max,
        )
