"""Settings of who calls, `PERFORMANCE_CALLERS_*`, and the types that sections of limits share."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from perf_middleware.limits.callers import Callers
from perf_middleware.limits.networks import networks_of
from perf_middleware.path_patterns import PathPattern
from perf_middleware.section import Section

UNIX: Final = "unix"  # the peer at the other end of a unix socket, which has no address


_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 §5.6.2


def _one_or_several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _of_patterns(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        PathPattern.of(text)  # raises for what is no pattern
    return texts


def _of_methods(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        if not _TOKEN.fullmatch(text):
            raise ValueError(f"{text!r} is no method of HTTP")
    return tuple(text.upper() for text in texts)


def _field_name(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise ValueError("must be the name of a header field, such as grpc-timeout")
    return text.lower()


def _of_networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    networks_of(texts)  # raises for what is no network
    return texts


def _of_peers(texts: tuple[str, ...]) -> tuple[str, ...]:
    networks_of(text for text in texts if text != UNIX)
    return texts


Texts: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_one_or_several)]
Patterns: TypeAlias = Annotated[
    tuple[str, ...], BeforeValidator(_one_or_several), AfterValidator(_of_patterns)
]
Methods: TypeAlias = Annotated[
    tuple[str, ...],
    Field(min_length=1),
    BeforeValidator(_one_or_several),
    AfterValidator(_of_methods),
]
"""In capitals."""
HeaderName: TypeAlias = Annotated[str, AfterValidator(_field_name)]
"""In lower case."""
Networks: TypeAlias = Annotated[
    tuple[str, ...], BeforeValidator(_one_or_several), AfterValidator(_of_networks)
]
Peers: TypeAlias = Annotated[
    tuple[str, ...], BeforeValidator(_one_or_several), AfterValidator(_of_peers)
]


class CallersSettings(Section):
    """Who the client of a request is: its address, and which proxies may tell it."""

    trusted_proxies: Peers = Field(
        default=(),
        description="Networks (10.0.0.0/8) or addresses of your proxies: what they say of the "
        'client is believed; "unix" for one at the other end of a unix socket.',
    )
    forwarded_field: Literal["x-forwarded-for", "forwarded"] = Field(
        default="x-forwarded-for",
        description="The field in which they say it; the other one is never read.",
    )
    trusted: Networks = Field(
        default=(),
        description="Networks of your own services: what they ask for by their fields (a "
        "deadline, how critical a request is) is obeyed.",
    )
    ipv4_prefix: int = Field(
        default=32, ge=8, le=32, description="Addresses of IPv4 with so many bits in common are "
        "one client.",
    )  # fmt: skip
    ipv6_prefix: int = Field(
        default=64, ge=16, le=128, description="The same of IPv6, where a client has a /64 and "
        "more to itself.",
    )  # fmt: skip

    def make_callers(self) -> Callers:
        """What tells the callers apart with these settings."""
        return Callers(
            trusted_proxies=networks_of(text for text in self.trusted_proxies if text != UNIX),
            trusts_nameless=UNIX in self.trusted_proxies,
            header=self.forwarded_field,
            ipv4_prefix=self.ipv4_prefix,
            ipv6_prefix=self.ipv6_prefix,
            trusted=networks_of(self.trusted),
        )
