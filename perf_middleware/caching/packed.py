"""A stored response as bytes, for a store that other processes read.

    <10: the store's own> <8: identity> <4: length of what follows> <what is told of it> <its body>

No pickle: numbers, texts and bytes in msgpack.  Times are those of the one clock that all processes
share (`server_ms`), so that a copy in another process has the same age.  What cannot be read, by
its version or because it is damaged, is none: a miss.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import ormsgpack

from perf_middleware.caching.rules import CachePolicy
from perf_middleware.caching.stored import Lifetimes, StoredResponse, groups_of
from perf_middleware.coding_choice import Choice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

VERSION: Final = 2  # 1: without dependencies
STORES_OWN: Final = 10  # version, flag and count, which the store fills in
COMPRESSED_MIN_BYTES: Final = 64 << 10  # below, reading it costs more than carrying it
WORTH_IT: Final = 0.9  # of the size; else it is stored as it is
_LEVEL: Final = 1
_HEAD: Final = struct.Struct(">8sI")
_BEFORE: Final = bytes((VERSION, ord("-"))) + bytes(STORES_OWN - 2)
_PLAIN, _ZLIB = 0, 1
_NEW: Final = StoredResponse.__new__
_US_PER_MS: Final = 1_000


def pack(stored: StoredResponse, *, identity: bytes, now_us: int, server_ms: int) -> bytes:
    """`stored` as it is at `now_us`, which is `server_ms` on the clock of all."""
    body, coding = stored.body, _PLAIN
    if len(body) >= COMPRESSED_MIN_BYTES and b"content-encoding" not in dict(stored.headers):
        smaller = zlib.compress(body, _LEVEL)
        if len(smaller) < WORTH_IT * len(body):
            body, coding = smaller, _ZLIB
    told = ormsgpack.packb(
        [
            coding,
            len(stored.body),
            server_ms - (now_us - stored.born_us) // _US_PER_MS,
            server_ms - (now_us - stored.stored_us) // _US_PER_MS,
            stored.produced_us,
            stored.received_s,
            stored.target,
            stored.status,
            [item for pair in stored.headers for item in pair],
            stored.lines,
            list(stored.tags),
            len(stored.dependencies),
            _packed_facts(stored),
        ],
        option=ormsgpack.OPT_NON_STR_KEYS,
    )
    return b"".join((_BEFORE, _HEAD.pack(identity, len(told)), told, body))


def unpack(
    content: bytes,
    *,
    primary: bytes,
    key_of: Callable[[tuple[bytes, ...]], bytes | None],
    now_us: int,
    server_ms: int,
    body_bytes_max: int,
) -> StoredResponse | None:
    """The stored response in `content`; None for what is none, or larger than `body_bytes_max`.

    `key_of` gives the key of a response to this request that varies by some names.
    """
    try:
        if content[0] != VERSION:
            return None
        identity, told_bytes = _HEAD.unpack_from(content, STORES_OWN)
        start = STORES_OWN + _HEAD.size
        (
            coding, body_bytes, born_ms, stored_ms, produced_us, received_s, target, status, flat,
            lines, tags, depends, packed_facts,
        ) = ormsgpack.unpackb(
            content[start : start + told_bytes], option=ormsgpack.OPT_NON_STR_KEYS
        )  # fmt: skip
        lifetimes, vary, route, rule, shares_authorization, choice = _facts_from(packed_facts)
        body = content[start + told_bytes :]
        if body_bytes > body_bytes_max:
            return None
        if coding == _ZLIB:
            inflate = zlib.decompressobj()
            body = inflate.decompress(body, body_bytes)
            if inflate.unconsumed_tail or not inflate.eof:
                return None
        elif coding != _PLAIN:
            return None
        if len(body) != body_bytes:
            return None
        key = key_of(vary)
        if key is None:
            return None
        pairs = iter(flat)
        own = len(tags) - depends - len(groups_of(lines))
        if own < 0:
            return None
        stored_us = now_us - (server_ms - stored_ms) * _US_PER_MS
        stored = _NEW(StoredResponse)
        # Not StoredResponse(...): to call a class packs its keyword arguments into a dict, which is
        # a sixth of all that is done here.
        stored.__init__(  # type: ignore[misc]
            primary=primary,
            key=key,
            target=target,
            status=status,
            headers=list(zip(pairs, pairs, strict=True)),
            lines=lines,
            body=body,
            lifetimes=lifetimes,
            initial_age_us=(stored_ms - born_ms) * _US_PER_MS,
            produced_us=produced_us,
            now_us=stored_us,
            vary=vary,
            tags=tuple(tags),
            route=route,
            rule=rule,
            shares_authorization=shares_authorization,
            choice=choice,
            dependencies=tuple(tags[own : own + depends]),
        )
    # Bytes of any kind: whatever does not fit is no record of ours.
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError,
            struct.error, zlib.error):  # fmt: skip
        return None
    stored.received_s = received_s
    stored.identity = identity
    return stored


def left_ms(stored: StoredResponse, now_us: int) -> int:
    """Until it can answer nothing any more."""
    return max(0, stored.useless_from_us - now_us) // _US_PER_MS


def _packed_facts(stored: StoredResponse) -> bytes:
    """What all responses of a route have in common, mostly: read once, and then known."""
    lifetimes = stored.lifetimes
    return ormsgpack.packb(
        [
            [
                lifetimes.fresh_s,
                lifetimes.stale_while_revalidate_s,
                lifetimes.stale_if_error_s,
                lifetimes.may_be_stale,
                lifetimes.must_validate,
            ],
            list(stored.vary),
            stored.route,
            _rule_facts(stored.rule),
            stored.shares_authorization,
            None if stored.choice is None else [stored.choice.encode, stored.choice.hide_length],
        ]
    )


@lru_cache(maxsize=1_000)
def _facts_from(
    packed: bytes,
) -> tuple[Lifetimes, tuple[bytes, ...], str, CachePolicy | None, bool, Choice | None]:
    lifetimes, vary, route, rule, shares_authorization, choice = ormsgpack.unpackb(packed)
    fresh_s, stale_while_revalidate_s, stale_if_error_s, may_be_stale, must_validate = lifetimes
    return (
        Lifetimes(
            fresh_s=fresh_s,
            stale_while_revalidate_s=stale_while_revalidate_s,
            stale_if_error_s=stale_if_error_s,
            may_be_stale=may_be_stale,
            must_validate=must_validate,
        ),
        tuple(vary),
        route,
        None if rule is None else _rule_from(*rule),
        shares_authorization,
        None if choice is None else Choice(*choice),
    )


def _rule_facts(rule: CachePolicy | None) -> list[Any] | None:
    """What a stored response needs of its rule: whose it is, and whether the query counts."""
    if rule is None:
        return None
    named = () if callable(rule.private_by) else rule.private_by
    return [
        rule.name,
        rule.shared or callable(rule.private_by),
        list(named),
        None if rule.query is None else list(rule.query),
    ]


def _rule_from(
    name: str, for_everybody: bool, private_by: Sequence[str], query: Sequence[str] | None
) -> CachePolicy:
    """A rule of another process, as far as its stored responses need it."""
    return CachePolicy(
        name=name,
        shared=for_everybody,
        private_by=() if for_everybody else tuple(private_by),
        query=None if query is None else tuple(query),
    )
