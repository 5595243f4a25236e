"""Heads like one that was judged before: an app sends few kinds of them, with other bodies.

    names of the fields                     --> Shape: the places of those whose values decide
    shape, status, rule, values that decide --> Known: the verdict

What is told of each answer anew (its length, its entity tag) decides nothing here.  The judge looks
himself at a head that tells a time or has a field that is not stored, and at each answer that comes
a second or more after the app was called: its age would count.
"""

from __future__ import annotations

from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.caching.fields import HOP_BY_HOP
from perf_middleware.caching.judgement import NEVER_KEPT, Keep
from perf_middleware.caching.stored import (
    HEADER_BYTES,
    KNOWN_HEADER_BYTES,
    NO_LINES_BYTES,
    US_PER_S,
)
from perf_middleware.field_names import NAME, NameSequences

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perf_middleware.caching.cache_status import CacheStatus
    from perf_middleware.caching.fields import Headers
    from perf_middleware.caching.judgement import Judge
    from perf_middleware.caching.rules import CachePolicy

KNOWN_MAX: Final = 512  # each with up to so many bytes of values; then it starts anew
VALUES_BYTES_MAX: Final = 2_000
FIELDS_MAX: Final = 24  # of a head; apps send about five, and each name takes its room
_DECIDING: Final = frozenset({b"cache-control", b"content-type", b"vary"})
_LOOKED_AT: Final = HOP_BY_HOP | NEVER_KEPT | {b"cache-groups", b"date", b"expires", b"set-cookie"}
_BYTES: Final = {bytes}
_NONE: Final[tuple[bytes, ...]] = ()


class Shape:
    """What the names of a head's fields tell, in their order; -1 for what is not among them."""

    __slots__ = (
        "decided_by", "etag_at", "fields", "length_at", "modified_at", "names", "own_at",
    )  # fmt: skip

    def __init__(
        self, names: Sequence[bytes], deciding: frozenset[bytes], fields: frozenset[bytes]
    ) -> None:
        self.names = tuple(names)
        at = [place for place, name in enumerate(names) if name in deciding]
        self.decided_by: Callable[[Any], Any] = itemgetter(*at) if at else _nothing
        # Those of which each answer has its own value.
        self.own_at = tuple([place for place, name in enumerate(names) if name not in deciding])
        self.length_at = _place(names, b"content-length")
        self.etag_at = _place(names, b"etag")
        self.modified_at = _place(names, b"last-modified")
        self.fields = fields  # of which a stored response keeps the lines


class Known:
    """A verdict; `keep` None: not kept, and `why`.  Age and lines are each answer's own."""

    __slots__ = (
        "_field", "fresh_us", "head_bytes", "headers", "is_for_others", "is_plain", "keep", "rule",
        "shape", "shared_head_bytes", "status", "usable_if_error_us", "usable_us", "useless_us",
        "why",
    )  # fmt: skip

    def __init__(
        self,
        verdict: Keep | str,
        shape: Shape,
        status: int,
        rule: CachePolicy | None,
        values: Sequence[bytes],
    ) -> None:
        self.shape = shape
        # What decides is the same object in all heads like it; what does not is each answer's own.
        own = frozenset(shape.own_at)
        self.headers: Headers = [
            (name, b"" if at in own else value)
            for at, (name, value) in enumerate(zip(shape.names, values, strict=True))
        ]
        # The room of a stored head beside its values: the first pays for what it has in common
        # with the next ones, which are charged less.
        shared_bytes = sum(len(value) for _, value in self.headers)
        self.head_bytes = HEADER_BYTES * len(values) + sum(map(len, shape.names))
        self.shared_head_bytes = KNOWN_HEADER_BYTES * len(own) - NO_LINES_BYTES - shared_bytes
        self.status = status
        self.rule = rule  # held: it is known by its id
        self.keep: Keep | None = None
        self.why: str | None = None
        self.is_for_others = False
        self.is_plain = False
        """Kept under its URL alone, its length told, its tags no parameters of the path."""
        self._field: tuple[CacheStatus, tuple[bytes, bytes]] | None = None
        if isinstance(verdict, Keep):
            self.keep = replace(verdict, lines={})  # those of the answer that was judged
            lifetimes = verdict.lifetimes
            usable_s = lifetimes.fresh_s + lifetimes.stale_while_revalidate_s
            self.is_for_others = not lifetimes.must_validate and usable_s > 0
            # The times of `StoredResponse`, counted from its birth.
            fresh_us = lifetimes.fresh_s * US_PER_S
            self.fresh_us = 0 if lifetimes.must_validate else fresh_us
            self.usable_us = fresh_us + lifetimes.stale_while_revalidate_s * US_PER_S
            self.usable_if_error_us = fresh_us + lifetimes.stale_if_error_s * US_PER_S
            self.useless_us = max(self.usable_us, self.usable_if_error_us)
            has_tags = rule is not None and bool(rule.tags)
            self.is_plain = shape.length_at >= 0 and not verdict.vary and not has_tags
        else:
            self.why = verdict

    def headers_with(self, values: Sequence[bytes]) -> Headers:
        """The fields of a head like it, with these values.

        No answer's own value is held here: a table of heads would keep it when its answer is gone.
        """
        shape, headers = self.shape, self.headers.copy()
        for at in shape.own_at:
            headers[at] = (shape.names[at], values[at])
        return headers

    def stored_field(self, status: CacheStatus) -> tuple[bytes, bytes]:
        """Cache-Status, as `status` writes it, of an answer of the app that is stored by this."""
        known = self._field
        if known is None or known[0] is not status:
            detail = None if self.rule is None else self.rule.name
            field = status.forwarded("uri-miss", stored=True, detail=detail)
            known = self._field = (status, field)
        return known[1]


class KnownHeads:
    """The verdicts of one judge."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._deciding = _DECIDING.union(judge.options.targeted)
        self._looked_at = _LOOKED_AT | ({b"last-modified"} if judge.options.heuristic else set())
        self._shapes: NameSequences[Shape | None] = NameSequences(self._shape)
        self._known: dict[tuple[Any, ...], Known | None] = {}

    def of(
        self, status: int, sent: Sequence[Any], rule: CachePolicy | None
    ) -> tuple[Known, list[bytes]] | None:
        """What is known of a head with the fields `sent`, and the values of those.

        None where the judge has to look: of a request that has credentials or directives itself he
        must always.
        """
        try:
            names = tuple(map(NAME, sent))
            values = [value for _, value in sent]
        except (TypeError, LookupError, ValueError):
            return None  # no pairs
        try:
            shape = self._shapes.known[names]
        except TypeError:
            return None  # a name that is a buffer
        except KeyError:
            shape = self._learn_shape(names, sent)
        if shape is None or set(map(type, values)) != _BYTES:
            return None
        key = (shape, status, id(rule), shape.decided_by(values))
        try:
            known = self._known[key]
        except KeyError:
            known = self._learn(key, status, sent, rule, values)
        return None if known is None else (known, values)

    def _learn_shape(self, names: tuple[Any, ...], sent: Sequence[Any]) -> Shape | None:
        if len(sent) > FIELDS_MAX:
            return None
        try:
            shape = self._shapes.learn(sent)
        except (TypeError, ValueError):
            return None
        # Names that are no bytes, or too long to be remembered, were not read as they are.
        return shape if names in self._shapes.known else None

    def _learn(
        self,
        key: tuple[Any, ...],
        status: int,
        sent: Sequence[Any],
        rule: CachePolicy | None,
        values: Sequence[bytes],
    ) -> Known | None:
        known = None
        # Of these each answer is looked at: their functions, their reads, what clients are told.
        if rule is None or not (rule.tracked or rule.has_functions or rule.tell_clients):
            judge = self._judge
            verdict = judge.judge(
                status, judge.collect(sent), credentials=frozenset(), no_store=False, rule=rule,
                sent_us=0, now_us=0, wall_us=0,
            )  # fmt: skip
            if not isinstance(verdict, Keep) or verdict.without == NEVER_KEPT:
                known = Known(verdict, key[0], status, rule, values)
        decided_by = key[-1]
        size_bytes = len(decided_by if isinstance(decided_by, bytes) else b"".join(decided_by))
        if size_bytes <= VALUES_BYTES_MAX:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[key] = known
        return known

    def _shape(self, names: Sequence[bytes]) -> Shape | None:
        if not self._looked_at.isdisjoint(names) or names.count(b"content-length") > 1:
            return None
        return Shape(names, self._deciding, self._judge.fields)


def age_without_date_us(*, sent_us: int, now_us: int, wall_us: int) -> int | None:
    """The initial age of an answer whose head is known; None from a second on.

    Without Date it was made when it came, to the second (RFC 9111 §4.2.3, RFC 9110 §6.6.1).
    """
    age_us, delay_us = wall_us % US_PER_S, now_us - sent_us
    if delay_us > age_us:  # no max(): it takes as long as all the rest
        age_us = delay_us
    return age_us if age_us < US_PER_S else None


def _place(names: Sequence[bytes], name: bytes) -> int:
    return names.index(name) if name in names else -1


def _nothing(_values: Any) -> tuple[bytes, ...]:
    return _NONE
