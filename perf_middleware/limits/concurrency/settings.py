"""Settings of backpressure: `PERFORMANCE_BACKPRESSURE_*`."""

from __future__ import annotations

from random import Random
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from perf_middleware.limits.concurrency.aimd import Aimd
from perf_middleware.limits.concurrency.criticality import CODES, CriticalityName, Treatment
from perf_middleware.limits.concurrency.estimate import Estimator, Fixed
from perf_middleware.limits.concurrency.gradient import Gradient
from perf_middleware.limits.concurrency.runtime import Backpressure
from perf_middleware.limits.settings import (  # noqa: TC001 - pydantic reads them
    HeaderName,
    Methods,
    Texts,
)
from perf_middleware.path_patterns import PathPattern
from perf_middleware.probe_paths import PROBE_PATHS
from perf_middleware.refusals import RETRY_AFTER_S_MAX, Refusals
from perf_middleware.section import Section

DETAIL: Final = "The server has more to do than it can: ask again later."


class BackpressureRule(Section):
    """What holds for the requests that match `path` and `methods`: the first rule that matches
    counts, alone.

    It takes the place of a decorator on the endpoint: who runs the app has the last word.
    """

    path: str = Field(
        description="Pattern of the path: /items/{id}, /files/{path:path}, /static/*."
    )
    methods: Methods | None = Field(
        default=None, description="Its methods; none given: all. GET is HEAD too."
    )
    criticality: CriticalityName | None = Field(
        default=None, description="How much these requests matter: the lowest class is shed first."
    )
    partition: str | None = Field(
        default=None, min_length=1, max_length=100,
        description="The partition that these requests share with those of rules of the same name.",
    )  # fmt: skip
    limit: int | None = Field(
        default=None, ge=1, le=100_000,
        description="How many of a partition may be in flight, and how many wait for that; given "
        "once for each partition.",
    )  # fmt: skip

    @model_validator(mode="after")
    def _has_a_pattern(self) -> BackpressureRule:
        self.pattern()
        if self.limit is not None and self.partition is None:
            raise ValueError("limit is that of a partition: name the partition")
        return self

    def pattern(self) -> PathPattern:
        return PathPattern.of(self.path)

    def entry(self) -> tuple[PathPattern, frozenset[str] | None, Treatment]:
        """The rule as RouteRules takes it."""
        code = None if self.criticality is None else CODES[self.criticality]
        methods = None if self.methods is None else frozenset(self.methods)
        return self.pattern(), methods, Treatment(code, self.partition)


class BackpressureSettings(Section):
    """So many requests in the app at once, a short line before it, and 503 for the rest."""

    enabled: bool = Field(
        default=False, description="Limit how many requests the app works on at once."
    )
    adaptive: Literal["gradient", "aimd", "off"] = Field(
        default="gradient",
        description="How the limit is found: from the growth of latency, by small steps up and "
        "cuts down, or not: limit_first holds.",
    )
    limit_first: int = Field(
        default=20, ge=1, le=100_000,
        description="Requests in flight at the start; always, where adaptive is off.",
    )  # fmt: skip
    limit_min: int = Field(default=1, ge=1, le=100_000, description="The limit is never lower.")
    limit_max: int = Field(default=200, ge=1, le=100_000, description="The limit is never higher.")
    latency_max_s: float | None = Field(
        default=None, gt=0, le=3_600,
        description="For aimd: a mean latency above this is too much, seconds; none given: "
        "only answers with 503 and 504 are.",
    )  # fmt: skip
    waiting_max: int = Field(
        default=100, ge=0, le=100_000,
        description="Requests that may wait; a further one is shed, or one of a lower class.",
    )  # fmt: skip
    wait_max_s: float = Field(
        default=0.1, gt=0, le=60,
        description="How long a request may wait, seconds; a line that has not been empty for so "
        "long is a standing one.",
    )  # fmt: skip
    wait_target_s: float = Field(
        default=0.02,
        gt=0,
        le=60,
        description="How long it may wait in a standing line, where the newest is served first.",
    )
    turn_budget_s: float | None = Field(
        default=0.005, gt=0, le=10,
        description="What requests may use of one turn of the event loop before others wait, "
        "seconds; none given: only requests in flight count, and work that never waits is unseen.",
    )  # fmt: skip
    websockets_max: int | None = Field(
        default=None, ge=0, le=1_000_000,
        description="Websockets that may be open; none given: any number.",
    )  # fmt: skip
    rules: tuple[BackpressureRule, ...] = Field(
        default=(), description="What holds for some paths."
    )
    header: HeaderName | None = Field(
        default="x-criticality",
        description="The header in which a trusted caller names the class of its request.",
    )
    exempt_paths: Texts = Field(
        default=PROBE_PATHS, description="Paths that never wait, are never shed and do not count."
    )
    retry_after_min_s: int = Field(
        default=1, ge=0, le=RETRY_AFTER_S_MAX,
        description="Retry-After of a 503 is drawn for each client, from this, seconds ...",
    )  # fmt: skip
    retry_after_max_s: int = Field(
        default=5, ge=0, le=RETRY_AFTER_S_MAX, description="... to this, seconds."
    )  # fmt: skip
    dry_run: bool = Field(
        default=False, description="Let every request in, and count what would have been shed."
    )

    @model_validator(mode="after")
    def _agrees(self) -> BackpressureSettings:
        if self.adaptive != "off" and not self.limit_min <= self.limit_first <= self.limit_max:
            raise ValueError("limit_min <= limit_first <= limit_max must hold")
        if self.wait_target_s > self.wait_max_s:
            raise ValueError("wait_target_s must not be above wait_max_s")
        if self.retry_after_min_s > self.retry_after_max_s:
            raise ValueError("retry_after_min_s must not be above retry_after_max_s")
        self.partitions()
        return self

    def partitions(self) -> dict[str, int]:
        """The limit of each partition, by name."""
        limits: dict[str, int] = {}
        for rule in self.rules:
            if rule.partition is None or rule.limit is None:
                continue
            if limits.setdefault(rule.partition, rule.limit) != rule.limit:
                raise ValueError(f"the partition {rule.partition!r} has two limits")
        for rule in self.rules:
            if rule.partition is not None and rule.partition not in limits:
                raise ValueError(f"the partition {rule.partition!r} has no limit")
        return limits

    def estimator(self) -> Estimator[Any]:
        """What finds the limit."""
        bounds = {
            "limit_min": self.limit_min, "limit_first": self.limit_first,
            "limit_max": self.limit_max,
        }  # fmt: skip
        if self.adaptive == "gradient":
            return Gradient(**bounds, jitter=Random().random())  # noqa: S311 - no secret
        if self.adaptive == "aimd":
            latency_us = None if self.latency_max_s is None else _us(self.latency_max_s)
            return Aimd(**bounds, latency_us_max=latency_us)
        return Fixed(limit=self.limit_first)

    def make_backpressure(self) -> Backpressure:
        """What admits requests with these settings."""
        return Backpressure(
            estimator=self.estimator(),
            refusals=Refusals(
                detail=DETAIL,
                min_s=self.retry_after_min_s,
                max_s=self.retry_after_max_s,
                random=Random().random,  # noqa: S311 - jitter, no secret
            ),
            waiting_max=self.waiting_max,
            target_us=_us(self.wait_target_s),
            interval_us=_us(self.wait_max_s),
            turn_budget_us=None if self.turn_budget_s is None else _us(self.turn_budget_s),
            rules=[rule.entry() for rule in self.rules],
            partitions=self.partitions(),
            header=None if self.header is None else self.header.encode(),
            exempt_paths=self.exempt_paths,
            websockets_max=self.websockets_max,
            dry_run=self.dry_run,
        )


def _us(seconds: float) -> int:
    return max(round(seconds * 1e6), 1)
