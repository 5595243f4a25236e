"""All settings of the package: one section per feature, from arguments, environment and TOML.

    Settings(metrics={"enabled": False})    PERFORMANCE_METRICS_ENABLED=false    [metrics] enabled

Every field is taken from the highest source that names it (see settings_sources), then all of them
are validated at once, and everything that is wrong is said at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from perf_middleware.caching.settings import CacheSettings
from perf_middleware.caching.values.settings import MemoSettings
from perf_middleware.caching.warming.settings import WarmingSettings
from perf_middleware.compression.settings import CompressionSettings
from perf_middleware.configuration.problems import invalid_values
from perf_middleware.configuration.schema import PREFIX, Schema
from perf_middleware.configuration.sources import gather
from perf_middleware.dashboard.settings import DashboardSettings
from perf_middleware.database.outside.settings import OutsideSettings
from perf_middleware.database.retry.settings import RetrySettings
from perf_middleware.database.settings import DatabaseSettings
from perf_middleware.database.statements.settings import StatementSettings
from perf_middleware.database.tracking.settings import TrackingSettings
from perf_middleware.errors import SettingsError
from perf_middleware.fleet.settings import RedisSettings
from perf_middleware.limits.concurrency.settings import BackpressureSettings
from perf_middleware.limits.deadlines.settings import DeadlineSettings
from perf_middleware.limits.overload.settings import OverloadSettings
from perf_middleware.limits.rate.settings import RateLimitSettings
from perf_middleware.limits.settings import CallersSettings
from perf_middleware.limits.threads.settings import ThreadSettings
from perf_middleware.memory_watch.collector.settings import GcSettings
from perf_middleware.memory_watch.leaks.settings import LeakSettings
from perf_middleware.memory_watch.settings import MemorySettings
from perf_middleware.metrics.settings import MetricsSettings, RuntimeSettings
from perf_middleware.section import Section
from perf_middleware.tasks.settings import TaskSettings

DEFAULT = "default"
MASK = "********"


class LifespanSettings(Section):
    """The lifespan plugin: opens the resources with the app and closes them after it."""

    enabled: bool = Field(
        default=True, description="Open and close resources around the app's own lifespan."
    )
    start_timeout_s: float = Field(
        default=30.0, gt=0, description="How long each resource may take to open, seconds."
    )
    drain_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description="How long all resources together may take to close, seconds.",
    )


class EffectiveSetting(NamedTuple):
    """One setting as it holds: JSON-able value (a secret as `********`), and who said so."""

    key: str
    value: Any
    origin: str


class Settings(BaseSettings):
    """Every setting of one app; immutable.

    Raises SettingsError with one sentence for each unknown name and each invalid value.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    # Safe as part of a file's name: no leading dot or dash.
    service: str = Field(
        default="app", max_length=64, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
        description="Name of this service: in logs, and to keep two apps of one host apart.",
    )  # fmt: skip

    # A new feature adds one line here; a section's name has no underscore.
    redis: RedisSettings = RedisSettings()
    database: DatabaseSettings = DatabaseSettings()
    outside: OutsideSettings = OutsideSettings()
    statements: StatementSettings = StatementSettings()
    retry: RetrySettings = RetrySettings()
    tracking: TrackingSettings = TrackingSettings()
    cache: CacheSettings = CacheSettings()
    warming: WarmingSettings = WarmingSettings()
    memo: MemoSettings = MemoSettings()
    compression: CompressionSettings = CompressionSettings()
    callers: CallersSettings = CallersSettings()
    ratelimit: RateLimitSettings = RateLimitSettings()
    backpressure: BackpressureSettings = BackpressureSettings()
    deadlines: DeadlineSettings = DeadlineSettings()
    overload: OverloadSettings = OverloadSettings()
    threads: ThreadSettings = ThreadSettings()
    tasks: TaskSettings = TaskSettings()
    memory: MemorySettings = MemorySettings()
    leaks: LeakSettings = LeakSettings()
    gc: GcSettings = GcSettings()
    metrics: MetricsSettings = MetricsSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    dashboard: DashboardSettings = DashboardSettings()
    lifespan: LifespanSettings = LifespanSettings()

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    def __init__(self, **values: Any) -> None:
        schema = Schema.of(type(self))
        gathered = gather(schema, values, os.environ, Path())
        tree: dict[str, Any] = {}
        for key, given in gathered.values.items():
            setting = schema.settings[key]
            branch = tree if setting.section is None else tree.setdefault(setting.section, {})
            branch[setting.name] = given.value
        problems = gathered.problems
        try:
            super().__init__(**tree)
        except ValidationError as error:
            problems.extend(invalid_values(error, schema, gathered.values))
        if problems:
            # Raised out here so that no error in its context holds the refused values.
            raise SettingsError(tuple(problems))
        self._origins = {key: given.origin for key, given in gathered.values.items()}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `__init__` has merged: its errors and origins need the names as written."""
        return (init_settings,)

    def origin_of(self, key: str) -> str:
        """Who set `key` (`metrics.enabled`): `default`, `argument`, an environment name, a file.

        Raises KeyError for a key that is no setting.
        """
        return self._origins.get(Schema.of(type(self)).settings[key].key, DEFAULT)

    def effective(self) -> list[EffectiveSetting]:
        """Every setting with the value that holds, in the order of the sections."""
        values = self.model_dump(mode="json")
        rows = []
        for key, setting in Schema.of(type(self)).settings.items():
            branch = values if setting.section is None else values[setting.section]
            value = branch[setting.name]
            if setting.is_secret and value not in (None, {}):
                value = MASK
            rows.append(EffectiveSetting(key, value, self._origins.get(key, DEFAULT)))
        return rows
