"""Settings of the response cache: `PERFORMANCE_CACHE_*`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from perf_middleware.caching.cookies import IgnoredCookies
from perf_middleware.caching.options import CacheOptions
from perf_middleware.caching.rules import (
    SECONDS_MAX,
    CachePolicy,
    as_identity,
    field_value,
)
from perf_middleware.caching.runtime import ResponseCache
from perf_middleware.path_patterns import PathPattern
from perf_middleware.section import Section

MIB = 1 << 20


def _no_flag(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers of seconds")  # noqa: TRY004 - pydantic's
    return value


FieldName: TypeAlias = Annotated[
    str, StringConstraints(to_lower=True, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", max_length=100)
]
Seconds: TypeAlias = Annotated[int, Field(ge=0, le=SECONDS_MAX), BeforeValidator(_no_flag)]


def _one_or_several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Texts: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_one_or_several)]
FieldNames: TypeAlias = Annotated[tuple[FieldName, ...], BeforeValidator(_one_or_several)]


def _of_cookies(names: tuple[str, ...]) -> tuple[str, ...]:
    IgnoredCookies(names)  # raises for what is no name
    return names


CookieNames: TypeAlias = Annotated[Texts, AfterValidator(_of_cookies)]


class CacheRule(Section):
    """What holds for the paths that match `path`: the first rule that matches counts, alone.

    It takes the place of a decorator on the endpoint: who runs the app has the last word.
    """

    path: str = Field(
        description="Pattern of the path: /items/{id}, /files/{path:path}, /static/*."
    )
    ttl: Seconds | None = Field(default=None, description="Seconds that an answer is fresh here.")
    negative_ttl: Seconds | None = Field(
        default=None, description="The same for 404, 405, 410, 414 and 501."
    )
    stale_while_revalidate: Seconds | None = Field(
        default=None, description="Seconds that a stale answer is served while the app is asked."
    )
    stale_if_error: Seconds | None = Field(
        default=None, description="Seconds that a stale answer stands in for a failing app."
    )
    vary: FieldNames = Field(default=(), description="Request headers that the answer depends on.")
    query: Texts | None = Field(
        default=None, description="The only query parameters that count; none given: all."
    )
    tags: Texts = Field(default=(), description="Names to purge by; {id} as in the path.")
    private_by: Texts = Field(
        default=(), description="authorization, cookie, cookie:NAME: whose answer it is."
    )
    shared: bool = Field(
        default=False, description="The same answer for everybody, whatever credentials they send."
    )
    bypass: bool = Field(default=False, description="Never cached.")
    tracked: bool = Field(
        default=False,
        description="An answer holds until a commit writes a table that it was made of.",
    )
    tell_clients: str | None = Field(
        default=None, description="Cache-Control for clients, in place of the app's."
    )

    @model_validator(mode="after")
    def _makes_a_policy(self) -> CacheRule:
        self.pattern()
        self.policy()
        return self

    def pattern(self) -> PathPattern:
        return PathPattern.of(self.path)

    def policy(self) -> CachePolicy:
        tell = self.tell_clients
        return CachePolicy(
            name=self.path,
            pattern=self.pattern(),
            ttl_s=self.ttl,
            negative_ttl_s=self.negative_ttl,
            stale_while_revalidate_s=self.stale_while_revalidate,
            stale_if_error_s=self.stale_if_error,
            vary=tuple(name.encode() for name in self.vary),
            query=self.query,
            tags=self.tags,
            private_by=tuple(as_identity(name) for name in self.private_by),
            shared=self.shared,
            bypass=self.bypass,
            tracked=self.tracked,
            tell_clients=None if tell is None else field_value(tell),
        )


class CacheSettings(Section):
    """The response cache: a shared HTTP cache (RFC 9111) inside the app.

    Without rules and `default_ttl` it stores only what the app's own headers allow.
    """

    enabled: bool = Field(default=True, description="Cache responses.")
    position: Literal["inner", "outer"] = Field(
        default="inner",
        description="`inner`: behind your own middlewares (authentication), `outer`: before them.",
    )
    bytes_max: int = Field(
        default=64 * MIB, ge=64 * 1024, description="Memory for stored responses, bytes."
    )
    entries_max: int = Field(default=50_000, ge=1, description="How many responses are stored.")
    entry_bytes_max: int = Field(
        default=MIB, ge=0, description="A larger body is only streamed, bytes."
    )
    share: bool = Field(
        default=True,
        description="Share what is stored with other processes, where `redis.url` is set.",
    )
    default_ttl: Seconds | None = Field(
        default=None,
        description="Seconds for answers without a lifetime of their own; none: not stored.",
    )
    heuristic: bool = Field(
        default=False, description="Guess a lifetime from Last-Modified (RFC 9111 §4.2.2)."
    )
    targeted: tuple[FieldName, ...] = Field(
        default=("cdn-cache-control",),
        description="Fields that speak to this cache before Cache-Control does (RFC 9213).",
    )
    request_directives: bool = Field(
        default=True, description="Obey a client's Cache-Control (no-cache, max-age …)."
    )
    authorization: Literal["rule", "rfc9111"] = Field(
        default="rule",
        description="What makes an answer to Authorization shared: `rule`: a rule, or Vary beside "
        "`public`, `s-maxage` or `must-revalidate`; `rfc9111`: those alone (§3.5).",
    )
    credentials: FieldNames = Field(
        default=(),
        description="Request headers that say who asks, beside Authorization, Cookie and the like.",
    )
    ignored_cookies: CookieNames = Field(
        default=(),
        description="Cookies that say nothing of who asks: `_ga*` is each that begins so.",
    )
    status_header: bool = Field(default=True, description="Say it in Cache-Status (RFC 9211).")
    collapse: bool = Field(
        default=True, description="Requests that miss the same at once ask the app once."
    )
    collapse_wait_s: float = Field(
        default=5.0,
        gt=0,
        le=300,
        description="How long one may wait for another's answer, seconds.",
    )
    waiting_max: int = Field(default=20_000, ge=0, description="How many may wait at once.")
    refresh_max: int = Field(
        default=16, ge=0, description="Refreshes behind a stale answer at once."
    )
    refresh_timeout_s: float = Field(
        default=30.0, gt=0, le=3600, description="How long one may take, seconds."
    )
    early_refresh: float = Field(
        default=1.0, ge=0, le=100,
        description="How early popular answers are refreshed before they are stale: 0 never.",
    )  # fmt: skip
    rules: tuple[CacheRule, ...] = Field(default=(), description="What holds for some paths.")

    @model_validator(mode="after")
    def _entry_fits(self) -> CacheSettings:
        asked_for = "entry_bytes_max" in self.model_fields_set
        if asked_for and self.entry_bytes_max > self.bytes_max:
            raise ValueError("entry_bytes_max must not be larger than bytes_max")
        return self

    def options(self) -> CacheOptions:
        return CacheOptions(
            entry_bytes_max=min(self.entry_bytes_max, self.bytes_max),
            default_ttl_s=self.default_ttl,
            heuristic=self.heuristic,
            targeted=tuple(name.encode() for name in self.targeted),
            request_directives=self.request_directives,
            authorization_by_rfc=self.authorization == "rfc9111",
            credentials=tuple(name.encode() for name in self.credentials),
            ignored_cookies=self.ignored_cookies,
            status_header=self.status_header,
            collapse=self.collapse,
            collapse_wait_s=self.collapse_wait_s,
            waiting_max=self.waiting_max,
            refresh_max=self.refresh_max,
            refresh_timeout_s=self.refresh_timeout_s,
            early_refresh=self.early_refresh,
        )

    def make_cache(self) -> ResponseCache:
        """A cache of its own with these settings, in the memory of this process."""
        return ResponseCache(
            bytes_max=self.bytes_max,
            entries_max=self.entries_max,
            rules=self.policies(),
            options=self.options(),
        )

    def policies(self) -> tuple[tuple[PathPattern, CachePolicy], ...]:
        return tuple((rule.pattern(), rule.policy()) for rule in self.rules)
