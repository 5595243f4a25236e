"""`@cache_response(...)`: a cache rule on the endpoint that it is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from perf_middleware.caching.rules import (
    SECONDS_MAX,
    CachePolicy,
    KeyOf,
    as_identity,
    field_value,
)
from perf_middleware.endpoint_marks import leave_mark, mark_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.asgi import Scope

F = TypeVar("F", bound="Callable[..., Any]")

ATTRIBUTE: Final = "__perf_cache_policy__"


def cache_response(
    endpoint: Any = None,
    /,
    *,
    ttl: int | None = None,
    negative_ttl: int | None = None,
    stale_while_revalidate: int | None = None,
    stale_if_error: int | None = None,
    vary: Iterable[str] = (),
    query: Iterable[str] | None = None,
    tags: Iterable[str] = (),
    key: KeyOf | None = None,
    private_by: Iterable[str] | str | KeyOf = (),
    shared: bool = False,
    bypass: bool = False,
    tracked: bool = False,
    tell_clients: str | None = None,
    name: str | None = None,
) -> Callable[[F], F]:
    """Cache the answers of this endpoint; times in whole seconds.

    Works above or below the framework's own decorator, on sync and async functions and on endpoint
    classes: the function stays what it is and only carries the rule.

    - `ttl`: how long an answer is fresh for us, whatever it tells clients; answers that say
      no-store or private are never stored.
    - `negative_ttl`: the same for 404, 405, 410, 414 and 501.
    - `vary`: request headers that the answer depends on; `query`: the only query parameters that
      count; `key`: from the ASGI scope to one more part of the key (None: do not cache).
    - `private_by`: `"authorization"`, `"cookie:session"`, several of them, or a function of the
      scope: the answer is one user's own, and told apart by that.
    - `shared`: the same answer for everybody, also for requests that carry cookies or tokens.
    - `tags`: names to purge by; `{id}` is replaced by the path parameter.
    - `tell_clients`: the Cache-Control that clients get, instead of the app's.
    - `tracked`: an answer holds until a commit, in whichever process, writes a table that it was
      made of; `ttl` is then a day unless it is given, and clients are told `no-cache`.
    - `bypass`: never cache this endpoint.

    Raises ValueError for what contradicts itself, TypeError for what is of the wrong kind.
    """
    if endpoint is not None:
        raise TypeError("@cache_response needs its brackets: @cache_response(ttl=60)")
    policy = CachePolicy(
        name=name or "cache_response",
        ttl_s=seconds("ttl", ttl),
        negative_ttl_s=seconds("negative_ttl", negative_ttl),
        stale_while_revalidate_s=seconds("stale_while_revalidate", stale_while_revalidate),
        stale_if_error_s=seconds("stale_if_error", stale_if_error),
        vary=tuple(header.lower().encode() for header in listed("vary", vary)),
        query=None if query is None else tuple(listed("query", query)),
        tags=tuple(listed("tags", tags)),
        key=key,
        private_by=private_by if callable(private_by) else identities(private_by),
        shared=shared,
        bypass=bypass,
        tracked=tracked,
        tell_clients=None if tell_clients is None else field_value(tell_clients),
        on_endpoint=True,
    )

    def decorate(endpoint: F) -> F:
        return leave_mark(endpoint, ATTRIBUTE, policy, decorator="cache_response")

    return decorate


def policy_of(scope: Scope) -> CachePolicy | None:
    """The rule on the endpoint that the router left in the scope."""
    endpoint = scope.get("endpoint")
    if endpoint is None:
        return None
    policy = mark_on(endpoint, scope["method"], ATTRIBUTE)
    return policy if isinstance(policy, CachePolicy) else None


def listed(argument: str, names: Iterable[str] | str) -> list[str]:
    """One name, or several; raises TypeError for what is neither."""
    given: Any = names
    if not isinstance(given, Iterable) or isinstance(given, str | bytes | Mapping):
        given = (given,)
    found = list(given)
    if not all(isinstance(name, str) for name in found):
        raise TypeError(f"{argument} must be a text or several, not {names!r}")
    return found


def identities(private_by: Iterable[str] | str) -> tuple[str, ...]:
    """`private_by` with the names of fields in lower case; that of a cookie is the app's."""
    return tuple(as_identity(name) for name in listed("private_by", private_by))


def seconds(name: str, value: int | None) -> int | None:
    """`value`; raises ValueError for what is no number of whole seconds."""
    if value is not None and (type(value) is not int or not 0 <= value <= SECONDS_MAX):
        raise ValueError(
            f"{name} must be a number of whole seconds from 0 to {SECONDS_MAX}, not {value!r}"
        )
    return value
