"""`@rate_limit`: what an endpoint asks for itself."""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeVar

from perf_middleware.endpoint_marks import leave_mark
from perf_middleware.limits.rate.keys import KeySpec
from perf_middleware.limits.rate.limit_texts import Limit
from perf_middleware.limits.rate.specs import ATTRIBUTE, Exempt, QuotaSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.limits.rate.keys import OwnKey
    from perf_middleware.limits.rate.specs import Mark, OwnCost, OwnExemption, Per, Place, WhenDown

F = TypeVar("F", bound="Callable[..., Any]")


def rate_limit(
    limit: str | None = None,
    *,
    key: str | OwnKey = "client",
    cost: int | OwnCost = 1,
    name: str | None = None,
    exempt: bool | OwnExemption = False,
    when_down: WhenDown = "local",
    dry_run: bool = False,
    place: Place | None = None,
    per: Per = "request",
) -> Callable[[F], F]:
    """Requests of this endpoint draw from a quota of its own, beside those of the settings.

    Works above or below the framework's own decorator, on functions and endpoint classes; several
    may stand on one.  `key`, `cost` and `exempt` may be plain functions of the ASGI scope, which
    is not routed yet: a key of None exempts the request, one that raises is the client's.
    Endpoints that give the same `name`, and ask for the same, share the quota.
    `rate_limit(exempt=True)`: no quota holds here at all.

    Raises ValueError for what is no limit, TypeError for what is of the wrong kind.
    """
    if callable(limit):
        raise TypeError('@rate_limit needs its limit: @rate_limit("10/minute")')
    for what, given in (("key", key), ("cost", cost), ("exempt", exempt)):
        # An object that is called has it on its class.
        if iscoroutinefunction(given) or iscoroutinefunction(getattr(type(given), "__call__", 0)):  # noqa: B004
            raise TypeError(f"{what} is asked before anything waits: a plain function, not async")
    mark = _mark(limit, key, cost, name, exempt, when_down, dry_run, place, per)

    def decorate(endpoint: F) -> F:
        marks: tuple[Mark, ...] = getattr(endpoint, ATTRIBUTE, ())
        return leave_mark(endpoint, ATTRIBUTE, (*marks, mark), decorator="rate_limit")

    return decorate


def _mark(
    limit: str | None,
    key: str | OwnKey,
    cost: int | OwnCost,
    name: str | None,
    exempt: bool | OwnExemption,
    when_down: WhenDown,
    dry_run: bool,
    place: Place | None,
    per: Per,
) -> Mark:
    if exempt is True:
        if limit is not None:
            raise ValueError("exempt=True: no quota holds here, so give no limit")
        return Exempt()
    if not isinstance(limit, str):
        raise TypeError(f'a limit is a text such as "10/minute", not {limit!r}')
    if not callable(cost) and type(cost) is not int:
        raise TypeError(f"a cost is a whole number or a function of the scope, not {cost!r}")
    for what, given, known in (
        ("when_down", when_down, ("local", "open", "closed")),
        ("place", place, (None, "outer", "inner")),
        ("per", per, ("request", "message")),
    ):
        if given not in known:
            raise ValueError(f"{what} is one of {known}, not {given!r}")
    return QuotaSpec(
        limit=Limit.of(limit),
        name=name,
        key=key if callable(key) else KeySpec.of(key),
        cost=cost,
        exempt=exempt if callable(exempt) else None,
        when_down=when_down,
        dry_run=dry_run,
        place=place,
        per=per,
    )
