"""Explaining a request without sending it: the same look-up, no effect, no call of the app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from perf_middleware.asgi import SAFE_IN_PATHS, app_path
from perf_middleware.caching.explanation import explained_entry, explained_rule, verdict_on
from perf_middleware.caching.invalidation import TEXT
from perf_middleware.caching.stored import StoredResponse
from perf_middleware.caching.variants import Variants

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perf_middleware.asgi import Scope
    from perf_middleware.caching.runtime import ResponseCache


def scope_of(url: str, *, method: str, headers: Mapping[str, str]) -> Scope:
    """The ASGI scope of a request for `url`: `/path?query`, or with scheme and host.

    Raises ValueError for what is neither.
    """
    parts = urlsplit(url)
    if not parts.path.startswith("/") and not parts.netloc:
        raise ValueError(f"{url!r} is neither a path that begins with / nor a URL with a host")
    path = quote(parts.path or "/", safe=SAFE_IN_PATHS + "%")
    sent = {name.lower(): value for name, value in headers.items()}
    if parts.netloc:
        sent["host"] = parts.netloc.rpartition("@")[2]
    return {
        "type": "http",
        "method": method.upper(),
        "scheme": parts.scheme or "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": quote(parts.query, safe=SAFE_IN_PATHS + "%?").encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent.items()],
    }


def explain(cache: ResponseCache, scope: Scope) -> dict[str, Any]:
    """What is stored of the scope's URL, and what this request would get; JSON-able."""
    # Here and not above: the middleware imports the cache.
    from perf_middleware.caching.middleware.request import (
        CacheRequest,
        Silence,
        personal,
        primary_key,
    )

    for root in cache.roots:
        if scope["path"].encode(*TEXT).startswith(root + b"/"):
            scope = {**scope, "root_path": root.decode(*TEXT)}
    fields = dict(scope["headers"])
    host = fields.get(b"host")
    now_us = cache.clock()
    rule = cache.rules.rule_for(app_path(scope))
    primary = primary_key(scope, host or b"")
    silence = Silence()
    request = CacheRequest(
        scope,
        silence.receive,
        silence.send,
        host=host or b"",
        primary=primary,
        rule=rule,
        ignored_cookies=cache.special.ignored_cookies,
    )
    special = cache.special.of(fields, scope["headers"])
    if special is not None:
        request.take_special(special, with_directives=cache.options.request_directives)
    path = request.target.partition(b"://")[2].partition(b"/")[2]
    entries = cache.store.of_path(b"/" + path)
    if host is not None:
        entries = [entry for entry in entries if entry.target == request.target]
    told = {
        "url": (request.target if host is not None else b"/" + path).decode("utf-8", "replace"),
        "method": scope["method"],
        "rule": explained_rule(rule),
        "stored": [explained_entry(entry, now_us=now_us) for entry in entries],
        "last_refusal": cache.unstorable.get(hash(primary)),
    }
    if scope["method"] not in {"GET", "HEAD"}:
        return told | {"verdict": f"{scope['method']} is never answered from the store"}
    if special is not None and special.is_out:
        return told | {"verdict": "bypass: precondition or body"}
    if rule is not None and rule.bypass:
        return told | {"verdict": f"bypass: the rule {rule.name} says never"}
    if not request.take_rule(rule):
        return told | {"verdict": "bypass: the rule's key keeps this request out"}
    whose = personal(scope)
    if whose is not None and not (rule is not None and rule.is_for_all_or_one):
        return told | {"verdict": f"bypass: {whose}"}
    found = selected(cache, request.primary, request.lines)
    if found is None and host is None and len(entries) == 1:
        found = entries[0]  # asked about a path alone, and there is one host that has it
    return told | {
        "verdict": verdict_on(found, rule, request.directives, request.credentials, now_us=now_us)
    }


def selected(
    cache: ResponseCache, primary: bytes, lines: Mapping[bytes, list[bytes]]
) -> StoredResponse | None:
    """The stored response that a request would get, without counting it as asked for."""
    found = cache.store.peek(primary)
    if isinstance(found, Variants):
        key = found.key_for(lines)
        found = None if key is None else cache.store.peek(key)
    return found if isinstance(found, StoredResponse) else None
