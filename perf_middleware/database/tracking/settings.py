"""Settings of dependency tracking: `PERFORMANCE_TRACKING_*`."""

from __future__ import annotations

from pydantic import Field

from perf_middleware.section import Section


class TrackingSettings(Section):
    """What answers depend on: the tables that they read, and that commits write."""

    enabled: bool | None = Field(
        default=None,
        description="Look at every statement; null: where a rule of the app is `tracked`. A "
        "process that only writes says true.",
    )
    refuse_unannounced: bool = Field(
        default=False,
        description="Refuse with 503 what cannot be announced to Redis before its COMMIT, rather "
        "than have others answer what was before; needs redis.url.",
    )
    known_functions: tuple[str, ...] = Field(
        default=(),
        max_length=1_000,
        description="Names of SQL functions of your own that read and write no table.",
    )
    known_triggers: tuple[str, ...] = Field(
        default=(),
        max_length=1_000,
        description="Names of triggers that write nothing but the row they are called for, and "
        "leave its primary key as it is.",
    )
    rows: tuple[str, ...] = Field(
        default=(),
        max_length=1_000,
        description="Tables of which a look-up by primary key depends on its rows alone, and a "
        'write by primary key purges no others: names, or "*" for all.',
    )
