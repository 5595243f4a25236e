"""Settings of the way to Redis: `PERFORMANCE_REDIS_*`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, model_validator

from perf_middleware.fleet.hearing import LEASE_S_MAX
from perf_middleware.fleet.url import check_url
from perf_middleware.section import Section

if TYPE_CHECKING:
    from perf_middleware.fleet.runtime import Fleet


def _checked(url: SecretStr) -> SecretStr:
    check_url(url.get_secret_value())
    return url


RedisUrl: TypeAlias = Annotated[SecretStr, AfterValidator(_checked)]
Namespace: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+$")
]


class RedisSettings(Section):
    """Redis or Valkey (6.2 and newer), for what the processes of a service share.

    Without a URL everything stays in the memory of each process.
    """

    url: RedisUrl | None = Field(
        default=None,
        description="redis://user:password@host:6379/0, rediss:// with TLS, unix:///path.",
    )
    cluster: bool = Field(default=False, description="The URL is that of a node of a cluster.")
    namespace: Namespace | None = Field(
        default=None,
        description="First part of every key, `service` by default: services that must not share "
        "have different ones.",
    )
    timeout_s: float = Field(
        default=0.1,
        gt=0,
        le=10,
        description="How long an answer may take, seconds; then Redis is not asked until it is "
        "well again.",
    )
    connect_timeout_s: float = Field(
        default=1.0, gt=0, le=60, description="How long connecting may take, seconds."
    )
    heartbeat_s: float = Field(
        default=1.0,
        gt=0,
        le=60,
        description="How often it is asked whether Redis still answers, seconds: a connection that "
        "is lost without a word is noticed so soon.",
    )
    waiting_max: int = Field(
        default=10_000, ge=1, description="How many answers may be awaited at once."
    )
    lease_s: float = Field(
        default=1.0,
        ge=0.1,
        le=LEASE_S_MAX,
        description="How long a process that died or hangs is waited for by a purge that must hold "
        "everywhere, seconds; the same in all processes of a service.",
    )
    required: bool = Field(
        default=False, description="Do not start without it; else start and go on alone."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> RedisSettings:
        if self.url is None and (self.required or self.cluster):
            raise ValueError("`required` and `cluster` need a `url`: it is not set")
        if self.cluster and self.url is not None:
            check_url(self.url.get_secret_value(), cluster=True)
        return self

    def make_fleet(self, service: str = "app") -> Fleet | None:
        """The way to Redis that these settings describe; None without a URL."""
        if self.url is None:
            return None
        # Here and not above: redis-py takes a quarter of a second to import.
        from perf_middleware.fleet.runtime import Fleet

        return Fleet(
            self.url.get_secret_value(),
            cluster=self.cluster,
            namespace=self.namespace or service,
            timeout_s=self.timeout_s,
            connect_timeout_s=self.connect_timeout_s,
            heartbeat_s=self.heartbeat_s,
            waiting_max=self.waiting_max,
            lease_s=self.lease_s,
            required=self.required,
        )
