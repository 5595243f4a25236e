"""Cache directives: what Cache-Control, Pragma and targeted fields say, the stricter way in doubt.

    Cache-Control: max-age=60, ext="no-store, max-age=5"   one extension, not two directives
    Cache-Control: max-age=60; public                      broken: stale (max_age 0), not public
    Cache-Control: private="set-cookie, no-store           broken: private and no-store

An element that breaks the grammar grants nothing; every directive that can be read in it and that
forbids something counts.
Source: RFC 9111 §1.2.2, §4.2.1, §5.2, §5.4; RFC 5861 (stale-*); RFC 8246 (immutable); RFC 9213.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perf_middleware.caching.syntax.lists import is_token, members, unquote
from perf_middleware.caching.syntax.structured import parse_dictionary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from perf_middleware.caching.syntax.structured import Value

DELTA_SECONDS_MAX = 2**31  # the cap RFC 9111 §1.2.2 names for larger values
DIRECTIVES_MAX = 256  # a field with more is not read: nothing of it is stored or taken from store
FIELDS_MAX = 256  # a qualified form that names more means the whole response
_DIGITS_MAX = len(str(DELTA_SECONDS_MAX))

_WORD = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]++")
_NO_FIELDS: frozenset[bytes] = frozenset()
_UNREADABLE = b'"'  # an argument that no directive accepts

# What counts in a broken element too, and as what: the one lifetime that gives no permission.
_RESPONSE_RESTRICTIONS = {
    name: name
    for name in (b"no-store", b"no-cache", b"private", b"must-revalidate", b"proxy-revalidate",
                 b"no-transform", b"max-age")
} | {b"s-maxage": b"max-age"}  # fmt: skip
_SECONDS = frozenset({b"max-age", b"s-maxage", b"stale-while-revalidate", b"stale-if-error"})
_REQUEST_RESTRICTIONS = {
    name: name
    for name in (b"no-store", b"no-cache", b"max-age", b"min-fresh", b"max-stale", b"no-transform")
}

_Arguments = dict[bytes, list[bytes | None]]
"""By directive, lower case: an argument for each time it is there, unquoted; None without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseDirectives:
    """What a response permits; None and False where it says nothing (RFC 9111 §5.2.2).

    The qualified forms are in `no_cache_fields` and `private_fields` only, by lower-case name.
    """

    max_age: int | None = None
    s_maxage: int | None = None
    no_store: bool = False
    no_cache: bool = False
    private: bool = False
    public: bool = False
    must_revalidate: bool = False
    proxy_revalidate: bool = False
    must_understand: bool = False
    no_cache_fields: frozenset[bytes] = _NO_FIELDS
    private_fields: frozenset[bytes] = _NO_FIELDS
    stale_while_revalidate: int | None = None
    stale_if_error: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestDirectives:
    """What a request asks for; `max_stale` without a value is DELTA_SECONDS_MAX (§5.2.1)."""

    max_age: int | None = None
    max_stale: int | None = None
    min_fresh: int | None = None
    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    stale_if_error: int | None = None


NO_DIRECTIVES = ResponseDirectives()
NO_REQUEST_DIRECTIVES = RequestDirectives()


def parse_delta_seconds(value: bytes) -> int | None:
    """Seconds, at most DELTA_SECONDS_MAX; a token or a quoted string of digits, else None."""
    argument = unquote(value)
    return None if argument is None else _delta_seconds(argument)


def parse_response_directives(lines: Iterable[bytes]) -> ResponseDirectives:
    """The directives of a response's Cache-Control lines (RFC 9111 §5.2.2).

    A lifetime that is not valid is 0, one of several the smallest (§4.2.1); a stale-* that is not
    valid permits nothing.
    """
    elements = members(lines)
    if not elements:
        return NO_DIRECTIVES
    if len(elements) > DIRECTIVES_MAX:
        return ResponseDirectives(no_store=True)
    return _response_directives(_arguments(elements, _RESPONSE_RESTRICTIONS))


def parse_request_directives(
    lines: Iterable[bytes], pragma: Iterable[bytes] = ()
) -> RequestDirectives:
    """The directives of a request's Cache-Control lines, or of Pragma where there are none.

    What is not valid asks for more: max-age 0, no-cache for min-fresh, no max-stale.
    Source: RFC 9111 §5.2.1, §5.4; RFC 5861 §4.
    """
    lines = list(lines)
    elements = members(lines)
    if not elements:
        asked = not lines and any(element.lower() == b"no-cache" for element in members(pragma))
        return RequestDirectives(no_cache=True) if asked else NO_REQUEST_DIRECTIVES
    if len(elements) > DIRECTIVES_MAX:
        return RequestDirectives(no_cache=True, no_store=True)
    said = _arguments(elements, _REQUEST_RESTRICTIONS)
    min_fresh = _seconds(said.get(b"min-fresh"), choose=max)
    return RequestDirectives(
        max_age=_lifetime_s(said.get(b"max-age")),
        max_stale=_seconds(said.get(b"max-stale"), choose=min, without_value=DELTA_SECONDS_MAX),
        min_fresh=min_fresh,
        no_cache=b"no-cache" in said or (b"min-fresh" in said and min_fresh is None),
        no_store=b"no-store" in said,
        only_if_cached=b"only-if-cached" in said,
        stale_if_error=_seconds(said.get(b"stale-if-error"), choose=min),
    )


def parse_targeted(lines: Iterable[bytes]) -> ResponseDirectives | None:
    """The directives of a targeted field, such as CDN-Cache-Control; None: use Cache-Control.

    None where the field is empty or not a valid dictionary.  Seconds of another type than Integer
    are passed over; what forbids something forbids it whatever its value, unless that is ?0.
    Source: RFC 9213 §2.1, §2.2.
    """
    members_by_key = parse_dictionary(lines)
    if not members_by_key:
        return None
    said: _Arguments = {}
    for name, value in members_by_key.items():
        for directive, argument in _targeted(name, value):
            said[directive] = [*said.get(directive, ()), argument]
    return _response_directives(said)


def _targeted(name: bytes, value: Value) -> Iterator[tuple[bytes, bytes | None]]:
    """A member as the directive and argument that Cache-Control would have for it, if any."""
    if value is False:
        return
    if name in _SECONDS:
        if isinstance(value, int) and value is not True:
            yield name, b"%d" % value  # a negative one is not valid: stale (RFC 9111 §4.2.1)
    elif value is True:
        yield name, None
    elif isinstance(value, str):
        yield name, value.encode()
    elif (forbidding := _RESPONSE_RESTRICTIONS.get(name)) is not None:
        yield forbidding, _UNREADABLE


def _response_directives(said: _Arguments) -> ResponseDirectives:
    max_age, s_maxage = _lifetime_s(said.get(b"max-age")), _lifetime_s(said.get(b"s-maxage"))
    if s_maxage is not None and _UNREADABLE in said.get(b"max-age", ()):
        s_maxage = 0  # a broken element named a lifetime: which one it was is not known
    # Nobody knows for how long it was meant: at least it is not used beyond that.
    unreadable = any(
        said.get(name) is not None and _seconds(said[name], choose=min) is None
        for name in (b"max-age", b"s-maxage")
    )
    no_cache, no_cache_fields = _qualified(said.get(b"no-cache"))
    private, private_fields = _qualified(said.get(b"private"))
    # It also permits to store answers to credentials (RFC 9111 §3.5): what is written in another
    # way than defined only forbids, as proxy-revalidate does for a shared cache.
    must_revalidate = None in said.get(b"must-revalidate", ())
    return ResponseDirectives(
        max_age=max_age,
        s_maxage=s_maxage,
        no_store=b"no-store" in said,
        no_cache=no_cache,
        private=private,
        # What permits something is taken only as it is defined: without an argument.
        public=None in said.get(b"public", ()),
        must_revalidate=must_revalidate,
        proxy_revalidate=unreadable
        or b"proxy-revalidate" in said
        or (b"must-revalidate" in said and not must_revalidate),
        must_understand=None in said.get(b"must-understand", ()),
        no_cache_fields=no_cache_fields,
        private_fields=private_fields,
        stale_while_revalidate=_seconds(said.get(b"stale-while-revalidate"), choose=min),
        stale_if_error=_seconds(said.get(b"stale-if-error"), choose=min),
    )


def _arguments(elements: list[bytes], restrictions: dict[bytes, bytes]) -> _Arguments:
    """The arguments of every directive, and what broken elements forbid."""
    said: _Arguments = {}
    for element in elements:
        name, equals, raw = element.partition(b"=")
        argument = unquote(raw) if equals else None
        if is_token(name) and (argument is not None or not equals):
            said.setdefault(name.lower(), []).append(argument)
            continue
        for word in _WORD.findall(element.lower()):
            if (forbidding := restrictions.get(word)) is not None:
                said.setdefault(forbidding, []).append(_UNREADABLE)
    return said


def _delta_seconds(argument: bytes) -> int | None:
    if not argument.isdigit():
        return None
    if len(argument) > _DIGITS_MAX:  # int() refuses thousands of digits, and takes long for many
        argument = argument.lstrip(b"0") or b"0"
        if len(argument) > _DIGITS_MAX:
            return DELTA_SECONDS_MAX
    return min(int(argument), DELTA_SECONDS_MAX)


def _lifetime_s(arguments: list[bytes | None] | None) -> int | None:
    """The smallest of several lifetimes, 0 where one is not valid (RFC 9111 §4.2.1)."""
    if arguments is None:
        return None
    return _seconds(arguments, choose=min) or 0


def _seconds(
    arguments: list[bytes | None] | None,
    *,
    choose: Callable[[Iterable[int]], int],
    without_value: int | None = None,
) -> int | None:
    """One of several values as `choose` picks it; None where one of them is not valid."""
    if arguments is None:
        return None
    values: list[int] = []
    for argument in arguments:
        value = without_value if argument is None else _delta_seconds(argument)
        if value is None:
            return None
        values.append(value)
    return choose(values)


def _qualified(arguments: list[bytes | None] | None) -> tuple[bool, frozenset[bytes]]:
    """Whether the directive is meant for the whole response, and the fields that it names."""
    if arguments is None:
        return False, _NO_FIELDS
    whole = False
    names: set[bytes] = set()
    for argument in arguments:
        named = [] if argument is None else members([argument])
        if 0 < len(named) <= FIELDS_MAX and all(is_token(name) and name != b"*" for name in named):
            names.update(name.lower() for name in named)
        else:
            whole = True
    return whole, frozenset(names)
