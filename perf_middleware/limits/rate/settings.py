"""Settings of the rate limit: `PERFORMANCE_RATELIMIT_*`."""

from __future__ import annotations

import json
from collections.abc import Callable  # noqa: TC003 - pydantic reads it
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from pydantic import BeforeValidator, Field, ValidationError, field_serializer, model_validator

from perf_middleware.limits.networks import networks_of
from perf_middleware.limits.rate.keys import KeySpec
from perf_middleware.limits.rate.limit_texts import Limit
from perf_middleware.limits.rate.runtime import RateLimit
from perf_middleware.limits.rate.specs import QuotaSpec, RuleSpec, check_name
from perf_middleware.limits.settings import (  # noqa: TC001 - pydantic reads them
    Methods,
    Networks,
    Patterns,
)
from perf_middleware.path_patterns import PathPattern
from perf_middleware.probe_paths import PROBE_PATHS
from perf_middleware.section import Section

if TYPE_CHECKING:
    from perf_middleware.limits.callers import Callers

COST_MAX: Final = 1_000_000


class QuotaSetting(Section):
    """One quota: how much, and for whom; as a text (`100/minute`) it is one for each client."""

    limit: str = Field(
        description="100/minute, 5/10 seconds, 10/second;burst=20 (so many of them at once)."
    )
    name: str | None = Field(
        default=None,
        description="How fields, figures and your own code call it; none given: default, then by "
        "its limit, or by the path of its rule.",
    )
    key: str | Callable[..., Any] = Field(
        default="client",
        description="What has a bucket of its own: client, global, route, user, header:NAME, or "
        "several joined by +; in Python also a function of the ASGI scope (None: exempt).",
    )
    when_down: Literal["local", "open", "closed"] = Field(
        default="local",
        description="While Redis is away: each process judges by its own memory, admits, or "
        "refuses.",
    )
    dry_run: bool = Field(default=False, description="Count what it would refuse, refuse nothing.")
    place: Literal["outer", "inner"] | None = Field(
        default=None,
        description="Judged outside or inside of your own middlewares; none given: inside where "
        "the key is a user, else outside.",
    )
    per: Literal["request", "message"] = Field(
        default="request",
        description="What is counted: requests and websockets, or the messages of a websocket.",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: Any) -> Any:
        if isinstance(value, int | float):
            raise ValueError(f"a quota is a text such as {value}/minute, or a table")  # noqa: TRY004 - pydantic's
        return {"limit": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_sound(self) -> QuotaSetting:
        self.spec()
        return self

    @field_serializer("key", when_used="json")
    def _told(self, key: str | Callable[..., Any]) -> str:
        return getattr(key, "__qualname__", repr(key)) if callable(key) else key

    def spec(self) -> QuotaSpec:
        if iscoroutinefunction(self.key):
            raise ValueError("key is asked before anything waits: a plain function, not async")
        return QuotaSpec(
            limit=Limit.of(self.limit),
            name=None if self.name is None else check_name(self.name),
            key=self.key if callable(self.key) else KeySpec.of(self.key),
            when_down=self.when_down,
            dry_run=self.dry_run,
            place=self.place,
            per=self.per,
        )


def _texts_or_tables(value: Any) -> Any:
    # A list of tables is written as JSON in the environment; of texts alone commas will do.
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"broken JSON: {error}") from None
    if isinstance(value, str):
        return tuple(text.strip() for text in value.split(",") if text.strip())
    return (value,) if isinstance(value, dict) else value


def _name_or_quota(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    try:
        return QuotaSetting(**value)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False, include_context=False)
    # In its own words: of a union only the kinds would be told.
    raise ValueError("; ".join(_sentence(each["loc"], each["msg"]) for each in wrong))


def _sentence(place: tuple[int | str, ...], message: str) -> str:
    said = message.removeprefix("Value error, ")
    return f"{'.'.join(map(str, place))}: {said}" if place else said


Quotas: TypeAlias = Annotated[tuple[QuotaSetting, ...], BeforeValidator(_texts_or_tables)]
QuotasOrNames: TypeAlias = Annotated[
    tuple[Annotated[str | QuotaSetting, BeforeValidator(_name_or_quota)], ...],
    BeforeValidator(_texts_or_tables),
]


class RateRule(Section):
    """What holds for the paths that match `path`: the first rule that matches counts, alone.

    It takes the place of a decorator on the endpoint: who runs the app has the last word.
    """

    path: str = Field(
        description="Pattern of the path: /items/{id}, /files/{path:path}, /static/*."
    )
    methods: Methods | None = Field(
        default=None,
        description="Its methods; none given: all. GET is HEAD too, and a websocket's.",
    )
    quotas: QuotasOrNames | None = Field(
        default=None,
        description="The quotas that hold here, in the place of the others: names of "
        "ratelimit.quotas, or limits of its own; none given: those that hold everywhere.",
    )
    cost: int = Field(
        default=1, ge=1, le=COST_MAX, description="What a request here draws from each of them."
    )
    exempt: bool = Field(default=False, description="No quota holds here.")

    @model_validator(mode="after")
    def _is_sound(self) -> RateRule:
        self.spec()
        if self.exempt and (self.quotas is not None or self.cost != 1):
            raise ValueError("is exempt: it has no quotas and no cost")
        return self

    def spec(self) -> RuleSpec:
        quotas: list[str | QuotaSpec] = []
        for quota in self.quotas or ():
            if isinstance(quota, QuotaSetting):
                quotas.append(quota.spec())
                continue
            # What is no limit is a name: no name that is one could ever be meant.
            is_limit = Limit.is_meant(quota)
            quotas.append(QuotaSpec(limit=Limit.of(quota)) if is_limit else quota)
        return RuleSpec(
            pattern=PathPattern.of(self.path),
            methods=None if self.methods is None else frozenset(self.methods),
            quotas=None if self.quotas is None else tuple(quotas),
            cost=self.cost,
            exempt=self.exempt,
        )


class RateLimitSettings(Section):
    """How many requests each caller may send; nothing is limited until a quota says so."""

    enabled: bool = Field(default=True, description="Judge requests where there are quotas.")
    quotas: Quotas = Field(
        default=(),
        description='What holds everywhere: "100/minute" for each client, or tables with a limit, '
        "a name and a key.",
    )
    rules: tuple[RateRule, ...] = Field(default=(), description="What holds for some paths.")
    exempt_paths: Patterns = Field(
        default=PROBE_PATHS, description="Patterns of paths that no quota holds for: probes."
    )
    exempt: Networks = Field(
        default=(), description="Networks (10.0.0.0/8) of callers that no quota holds for."
    )
    dry_run: bool = Field(
        default=False, description="Refuse nothing, tell nothing: count what would be refused."
    )
    headers: bool = Field(
        default=True, description="Tell clients RateLimit-Policy and RateLimit in each answer."
    )
    legacy_headers: bool = Field(
        default=False, description="And X-RateLimit-Limit, -Remaining, -Reset beside them."
    )
    entries_max: int = Field(
        default=100_000, ge=1, le=100_000_000,
        description="Buckets in the memory of a process; those that are full again make room.",
    )  # fmt: skip
    share: bool = Field(
        default=True, description="Judge for all processes together where redis.url is set."
    )

    def make_rate_limit(self, *, callers: Callers | None = None) -> RateLimit:
        """What judges with these settings.

        Raises SettingsError for rules that name no quota, and for costs that never pass.
        """
        return RateLimit(
            quotas=[quota.spec() for quota in self.quotas],
            rules=[rule.spec() for rule in self.rules],
            exempt_paths=[PathPattern.of(path) for path in self.exempt_paths],
            exempt=networks_of(self.exempt),
            callers=callers,
            dry_run=self.dry_run,
            headers=self.headers,
            legacy_headers=self.legacy_headers,
            entries_max=self.entries_max,
        )
