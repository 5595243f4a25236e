"""Settings of the garbage collector: `PERFORMANCE_GC_*`."""

from __future__ import annotations

from pydantic import Field, field_validator

from perf_middleware.section import Section

YOUNG_MIN = 100


class GcSettings(Section):
    """Long pauses are told with what they met; the collector itself is left as it is.

    `freeze` and `thresholds` change it for the whole process, so they are opted into.
    """

    enabled: bool = Field(default=True, description="Watch for long pauses.")
    freeze: bool = Field(
        default=False,
        description="Collect once the app has started, and leave what is there then out of all "
        "later collections (gc.freeze).",
    )
    thresholds: tuple[int, int, int] | None = Field(
        default=None,
        description="From how many new objects on the young ones are collected, and after how "
        "many of these the older (gc.set_threshold); null: as they are.",
    )
    pause_told_s: float = Field(
        default=0.1, ge=0.001, le=60,
        description="From this length on a pause is logged with the route that met it, seconds.",
    )  # fmt: skip
    pauses_max: int = Field(
        default=32, ge=1, le=1_000, description="How many of these pauses are remembered."
    )
    log_lines_per_minute_max: int = Field(
        default=6, ge=0, le=600, description="How many of these pauses are logged in a minute."
    )

    @field_validator("thresholds")
    @classmethod
    def _collects_still(cls, value: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
        if value is not None:
            young, middle, old = value
            if young < YOUNG_MIN or middle < 1 or old < 1 or max(value) > 2**31 - 1:
                raise ValueError(
                    f"must be three numbers, the first >= {YOUNG_MIN} and the others >= 1: "
                    "0 would end all collections"
                )
        return value
