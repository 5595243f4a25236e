"""Settings of timeouts and request limits: `PERFORMANCE_DEADLINES_*`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from pydantic import Field, model_validator

from perf_middleware.limits.deadlines.choices import (
    EXEMPT_FROM_BODY_LIMITS,
    EXEMPT_FROM_TIMEOUTS,
    BodyChoice,
    TimeoutChoice,
)
from perf_middleware.limits.deadlines.deadline import GRPC_TIMEOUT
from perf_middleware.limits.deadlines.pace import Pace
from perf_middleware.limits.deadlines.runtime import Deadlines
from perf_middleware.limits.settings import (  # noqa: TC001 - pydantic reads them
    HeaderName,
    Methods,
    Patterns,
)
from perf_middleware.path_patterns import PathPattern
from perf_middleware.section import Section

if TYPE_CHECKING:
    from collections.abc import Iterator

OF_REQUEST_LIMITS: Final = frozenset(
    {"body_bytes_max", "body_idle_s", "body_bytes_per_s_min", "body_grace_s", "header_bytes_max",
     "header_count_max", "url_bytes_max"}
)  # fmt: skip
OF_TIMEOUTS: Final = frozenset(
    {"timeout_s", "covers", "follow_header", "header", "header_max_s", "dry_run"}
)
TIMEOUT_S_MAX: Final = 86_400.0
Timeout: TypeAlias = Annotated[float, Field(ge=0.001, le=TIMEOUT_S_MAX)]
Covering: TypeAlias = Literal["head", "total"]


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)


class DeadlineRule(Section):
    """What holds for the paths that match `path`: the first rule that speaks of it counts.

    It takes the place of a decorator on the endpoint: who runs the app has the last word.  What a
    rule does not set is left to the next rule, the decorator or the section.
    """

    path: str = Field(
        description="Pattern of the path: /items/{id}, /files/{path:path}, /static/*."
    )
    methods: Methods | None = Field(
        default=None, description="Its methods; none given: all. GET is HEAD too."
    )
    timeout_s: Timeout | None = Field(
        default=None, description="In place of the section's, seconds; set to none: no timeout."
    )
    covers: Covering | None = Field(
        default=None, description="In place of the section's, beside timeout_s."
    )
    body_bytes_max: int | None = Field(
        default=None, ge=0,
        description="In place of the section's, bytes; set to none: no limit.",
    )  # fmt: skip

    @model_validator(mode="after")
    def _says_something(self) -> DeadlineRule:
        self.pattern()
        if not self.model_fields_set & {"timeout_s", "body_bytes_max"}:
            raise ValueError("sets neither timeout_s nor body_bytes_max")
        if self.covers is not None and self.timeout_s is None:
            raise ValueError("covers without timeout_s covers nothing")
        return self

    def pattern(self) -> PathPattern:
        return PathPattern.of(self.path)

    def method_set(self) -> frozenset[str] | None:
        return None if self.methods is None else frozenset(self.methods)


class DeadlineSettings(Section):
    """How long a request may take (504), and how much of it may come in (408, 413, 414, 431).

    All of it is off until something is set.
    """

    enabled: bool = Field(default=True, description="Obey what is set here, and the decorators.")
    timeout_s: Timeout | None = Field(
        default=None, description="What each request has, seconds; none: as long as it takes."
    )
    covers: Covering = Field(
        default="head",
        description="A timeout is for the time to the response's head, or for all of its body, "
        "which is cut then.",
    )
    follow_header: bool = Field(
        default=False,
        description="Obey the deadline that trusted callers tell: it may shorten a timeout.",
    )
    header: HeaderName = Field(
        default=GRPC_TIMEOUT,
        description="The field that tells it, and that current_deadline() writes: grpc-timeout "
        "(100m), x-envoy-expected-rq-timeout-ms (100), or any other (1.5, 150ms).",
    )
    header_max_s: Timeout = Field(
        default=60.0, description="A deadline that a caller tells is cut to it, seconds."
    )
    dry_run: bool = Field(
        default=False, description="Only count who would have been answered with 504 or cut."
    )
    rules: tuple[DeadlineRule, ...] = Field(default=(), description="What holds for some paths.")
    exempt: Patterns = Field(
        default=(), description="Paths without any timeout and limit on their bodies."
    )
    body_bytes_max: int | None = Field(
        default=None, ge=0,
        description="What a request's body may have as it is sent, bytes; more: 413.",
    )  # fmt: skip
    body_idle_s: Timeout | None = Field(
        default=None,
        description="How long the app waits for a client's next bytes, seconds; longer: 408.",
    )
    body_bytes_per_s_min: int | None = Field(
        default=None, ge=1,
        description="What a client has to send a second on average while the app waits for it, "
        "bytes; less: 408.",
    )  # fmt: skip
    body_grace_s: float = Field(
        default=5.0, ge=0.0, le=TIMEOUT_S_MAX,
        description="What body_bytes_per_s_min leaves a client at first, seconds.",
    )  # fmt: skip
    header_bytes_max: int | None = Field(
        default=None, ge=1,
        description="What the names and values of a request's headers may have, bytes; more: 431.",
    )  # fmt: skip
    header_count_max: int | None = Field(
        default=None, ge=1, description="How many headers a request may have; more: 431."
    )
    url_bytes_max: int | None = Field(
        default=None, ge=1, description="What path and query may have, bytes; more: 414."
    )

    @property
    def has_timeouts(self) -> bool:
        """Whether DeadlineMiddleware has something to do, decorators aside."""
        told = self.timeout_s is not None or self.follow_header
        return self.enabled and (told or any(rule.timeout_s is not None for rule in self.rules))

    @property
    def has_request_limits(self) -> bool:
        """Whether RequestLimitsMiddleware has something to do, decorators aside."""
        limits = OF_REQUEST_LIMITS - {"body_grace_s"}
        return self.enabled and (
            any(getattr(self, name) is not None for name in limits)
            or any(rule.body_bytes_max is not None for rule in self.rules)
        )

    def pace(self) -> Pace | None:
        """How long clients may take over their bodies."""
        if self.body_idle_s is None and self.body_bytes_per_s_min is None:
            return None
        return Pace(
            idle_us=None if self.body_idle_s is None else _us(self.body_idle_s),
            bytes_per_s_min=self.body_bytes_per_s_min,
            grace_us=_us(self.body_grace_s),
        )

    def _timeout_rules(
        self,
    ) -> Iterator[tuple[PathPattern, frozenset[str] | None, TimeoutChoice]]:
        for path in self.exempt:
            yield PathPattern.of(path), None, EXEMPT_FROM_TIMEOUTS
        for rule in self.rules:
            if "timeout_s" in rule.model_fields_set:
                timeout_us = None if rule.timeout_s is None else _us(rule.timeout_s)
                yield rule.pattern(), rule.method_set(), TimeoutChoice(timeout_us, rule.covers)

    def _body_rules(self) -> Iterator[tuple[PathPattern, frozenset[str] | None, BodyChoice]]:
        for path in self.exempt:
            yield PathPattern.of(path), None, EXEMPT_FROM_BODY_LIMITS
        for rule in self.rules:
            if "body_bytes_max" in rule.model_fields_set:
                yield rule.pattern(), rule.method_set(), BodyChoice(rule.body_bytes_max)

    def make_deadlines(self) -> Deadlines:
        """What both layers ask."""
        return Deadlines(
            default_timeout=TimeoutChoice(None if self.timeout_s is None else _us(self.timeout_s)),
            timeout_rules=list(self._timeout_rules()),
            covers=self.covers,
            follows_header=self.follow_header,
            header_name=self.header,
            header_max_us=_us(self.header_max_s),
            dry_run=self.dry_run,
            default_body=BodyChoice(self.body_bytes_max),
            body_rules=list(self._body_rules()),
            pace=self.pace(),
            header_bytes_max=self.header_bytes_max,
            header_count_max=self.header_count_max,
            url_bytes_max=self.url_bytes_max,
        )
