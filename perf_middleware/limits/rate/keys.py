"""Whose bucket a request draws from: `client`, `global`, `route`, `user`, `header:NAME`.

    daily|h<digest>          header:x-api-key      one bucket for each key that is sent
    daily|a203.0.113.7       ... and none is sent: the client's, apart from that of other quotas
    login|c203.0.113.7+r/login                     client+route

What a client sends stands in no key as it came: a digest of it does (BLAKE2b, RFC 7693), so that a
key has a bounded length and no secret of a client is in memory, in Redis or in a log.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.limits.callers import Callers

KeyOf: TypeAlias = Callable[[Mapping[str, Any]], bytes | None]
"""From a request's scope to its key; None: the quota does not hold for it."""

OwnKey: TypeAlias = Callable[[Mapping[str, Any]], str | bytes | None]
"""The same as the app's code writes it."""

DIGEST_BYTES: Final = 16
HEADER: Final = "header:"
WORDS: Final = ("client", "global", "route", "user")
_PERSON: Final = b"perf-ratelimit"
_FIELD_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")


def digest(value: bytes) -> bytes:
    """What stands for `value` in a key."""
    return blake2b(value, digest_size=DIGEST_BYTES, person=_PERSON).digest()


def user_of(scope: Mapping[str, Any]) -> str | None:
    """Who is signed in, as Starlette's AuthenticationMiddleware leaves it; None: nobody."""
    user = scope.get("user")
    if user is None or isinstance(user, str):
        return user or None
    if not getattr(user, "is_authenticated", True):
        return None
    for name in ("identity", "display_name", "username"):
        try:
            value = getattr(user, name, None)
        except NotImplementedError:  # Starlette's BaseUser, and SimpleUser's identity
            continue
        if value is not None and value != "":
            return str(value)
    return None


@dataclass(frozen=True, slots=True)
class KeySpec:
    """What a bucket is for: one of WORDS, a header, or several of them joined by `+`."""

    parts: tuple[str, ...] = ("client",)

    @classmethod
    def of(cls, text: str) -> KeySpec:
        """Raises ValueError for what names no key."""
        parts = []
        for word in text.split("+") if not text.startswith(HEADER) else [text]:
            part = word.strip()
            if part.lower().startswith(HEADER):
                name = part[len(HEADER) :]
                if not _FIELD_NAME.fullmatch(name):
                    raise ValueError(f"{name!r} is no name of a header")
                part = HEADER + name.lower()
            elif part not in WORDS:
                raise ValueError(
                    f"{part!r} is no key: write {', '.join(WORDS)} or header:NAME, or several "
                    "joined by +"
                )
            if part in parts:
                raise ValueError(f"{text!r} names {part} twice")
            parts.append(part)
        if "global" in parts and len(parts) > 1:
            raise ValueError(f"{text!r}: global is for all, and joins nothing")
        return cls(tuple(parts))

    @property
    def needs_user(self) -> bool:
        return "user" in self.parts

    @property
    def needs_route(self) -> bool:
        return "route" in self.parts

    def key_of(self, prefix: bytes, callers: Callers, route: str) -> KeyOf:
        """What makes the key of a request; `prefix` keeps those of a quota apart from others'."""
        route_part = b"r" + route.encode()
        made = [_part(part, callers, route_part) for part in self.parts]
        if self.parts == ("client",):
            return callers.keys_after(prefix + b"c")
        if len(made) == 1:
            only = made[0]
            return lambda scope: prefix + only(scope)
        return lambda scope: prefix + b"+".join([part(scope) for part in made])

    def key_for(self, prefix: bytes, callers: Callers, values: Sequence[str | bytes]) -> bytes:
        """The key of the requests that have these values, one for each part; global has none."""
        wanted = () if self.parts == ("global",) else self.parts
        if len(values) != len(wanted):
            raise ValueError(
                f"a key of {'+'.join(self.parts)} has {len(wanted)} values, not {len(values)}"
            )
        if not wanted:
            return prefix + b"g"
        return prefix + b"+".join(
            _part_for(part, callers, value) for part, value in zip(wanted, values, strict=True)
        )


CLIENT: Final = KeySpec()


def own_key(prefix: bytes, value: str | bytes) -> bytes:
    """The key where the app's own code has told what it is for."""
    return prefix + b"k" + digest(value if isinstance(value, bytes) else value.encode())


def _part(part: str, callers: Callers, route: bytes) -> Callable[[Mapping[str, Any]], bytes]:
    client_of = callers.client_of
    if part == "client":
        return lambda scope: b"c" + client_of(scope)
    if part == "global":
        return lambda scope: b"g"
    if part == "route":
        return lambda scope: route
    if part == "user":

        def of_user(scope: Mapping[str, Any]) -> bytes:
            user = user_of(scope)
            # Who is not signed in is told apart by address: no escape, and not one for all.
            return (
                b"a" + client_of(scope)
                if user is None
                else b"u" + digest(user.encode("utf-8", "surrogatepass"))
            )

        return of_user
    field = part[len(HEADER) :].encode()

    def of_header(scope: Mapping[str, Any]) -> bytes:
        lines = [value for name, value in scope["headers"] if name == field]
        # Two lines: which of them the app reads is not ours to guess, so neither makes a key.
        return b"h" + digest(lines[0]) if len(lines) == 1 and lines[0] else b"a" + client_of(scope)

    return of_header


def _part_for(part: str, callers: Callers, value: str | bytes) -> bytes:
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if part == "client":
        return b"c" + callers.key_of(text)
    if part == "route":
        return b"r" + text.encode()
    if part == "user":
        return b"u" + digest(text.encode("utf-8", "surrogatepass"))
    return b"h" + digest(value if isinstance(value, bytes) else value.encode("latin-1"))
