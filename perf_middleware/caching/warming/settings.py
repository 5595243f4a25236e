"""Settings of warming: `PERFORMANCE_WARMING_*`."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from perf_middleware.caching.settings import Texts  # noqa: TC001 - pydantic reads it
from perf_middleware.caching.warming.plan import Ask, Base, Fields, ask_of, variants_of
from perf_middleware.section import Section

if TYPE_CHECKING:
    from typing import Any


def _each_of_several(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: (one,) if isinstance(one, str) else one for name, one in value.items()}


def _of_variants(value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    variants_of(value)
    return value


def _of_base(value: str) -> str:
    Base.of(value)
    return value


Vary: TypeAlias = Annotated[
    dict[str, tuple[str, ...]], BeforeValidator(_each_of_several), AfterValidator(_of_variants)
]
BaseUrl: TypeAlias = Annotated[str, AfterValidator(_of_base)]


class WarmingSettings(Section):
    """Warming: what will be asked for is asked of the app ahead of its clients.

    Nothing is warmed without `urls`, a function under `@perf.cache.warmer` or another of these.
    """

    enabled: bool = Field(default=True, description="Warm what there is to warm.")
    base_url: BaseUrl | None = Field(
        default=None,
        description="Where clients find the app: https://shop.example, with the root path it is "
        "served below.  What is stored is by host.",
    )
    urls: Texts = Field(
        default=(), description="What to ask for: /items?page=1, or with scheme and host."
    )
    vary: Vary = Field(
        default={},
        description="Values of request headers: each URL is asked for with every combination of "
        "them; an empty value is a request without the header.",
    )
    wait_s: float = Field(
        default=10.0, ge=0, le=300,
        description="How long the start waits for the first run at most, seconds: 0 not at all.",
    )  # fmt: skip
    run_s: float = Field(
        default=60.0, gt=0, le=3600,
        description="How long one run may take, seconds; what is left waits for the next.",
    )  # fmt: skip
    request_s: float = Field(
        default=30.0, gt=0, le=3600, description="How long one request may take, seconds."
    )
    interval_s: float | None = Field(
        default=None, ge=1,
        description="Seconds from run to run, give or take a tenth; none: at the start alone.",
    )  # fmt: skip
    after_purge_s: float | None = Field(
        default=1.0, ge=0, le=3600,
        description="Seconds of quiet after a purge until what it took of the warmed is asked for "
        "again; none: not.",
    )  # fmt: skip
    remember: int = Field(
        default=0, ge=0, le=10_000,
        description="So many of the requests that were made most are kept for the next start: in "
        "Redis where it shares the cache, else in `remember_dir`; 0 none.",
    )  # fmt: skip
    remember_dir: Path | None = Field(
        default=None, description="Directory of the file that they are kept in without Redis."
    )
    refresh_hottest: int = Field(
        default=0, ge=0, le=10_000,
        description="So many of the answers that are asked for most are renewed before they are "
        "stale, behind clients: 0 none.",
    )  # fmt: skip
    refresh_ahead_s: float = Field(
        default=5.0, ge=0.1, le=3600,
        description="How long before, seconds; not in the first half of their life.",
    )  # fmt: skip
    concurrency: int = Field(default=2, ge=1, le=64, description="Requests at once.")
    asks_max: int = Field(
        default=1_000, ge=1, le=100_000, description="Requests in one run; more are left out."
    )

    @model_validator(mode="after")
    def _has_hosts(self) -> WarmingSettings:
        self.asks()
        return self

    def base(self) -> Base | None:
        return None if self.base_url is None else Base.of(self.base_url)

    def variants(self) -> tuple[Fields, ...]:
        return variants_of(self.vary)

    def asks(self) -> tuple[Ask, ...]:
        """Each URL in each variant; raises ValueError for what cannot be asked for."""
        base = self.base()
        return tuple(
            ask_of(url, fields, base=base) for url in self.urls for fields in self.variants()
        )
