"""Explaining a request without sending it: the same look-up, no effect, no call of the app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

from perf_middleware.asgi import SAFE_IN_PATHS, app_path
from perf_middleware.caching.explanation import explained_entry, explained_rule, verdict_on
from perf_middleware.caching.invalidation import TEXT, origin_of, path_of, split_url
from perf_middleware.caching.judgement import credentials_reason
from perf_middleware.caching.runtime.request import CacheRequest, Silence, personal, primary_key
from perf_middleware.caching.special import SEVERAL_HOSTS
from perf_middleware.caching.stored import StoredResponse
from perf_middleware.caching.syntax.lists import is_token
from perf_middleware.caching.variants import Variants

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perf_middleware.asgi import Scope
    from perf_middleware.caching.runtime import ResponseCache
    from perf_middleware.caching.special import Special


SENT_IN_QUERIES: Final = SAFE_IN_PATHS + "%?[]\\^`{|}"
"""All of ASCII that clients send in a query as it is (WHATWG URL §1.3): not `"`, `<`, `>`."""


def scope_of(url: str, *, method: str, headers: Mapping[str, str]) -> Scope:
    """The ASGI scope of a request for `url`, `/path?query` or with scheme and host, as it is sent.

    Raises ValueError for what no client can send.
    """
    scheme, host, path, query = split_url(url)
    if not _is_token(method):
        raise ValueError(f"{method!r} is no method: it must be a token, such as GET")
    fields = {name.lower().encode(): _sent(name, value) for name, value in headers.items()}
    if host is not None:
        fields[b"host"] = host
    raw_path = quote(path, safe=SAFE_IN_PATHS + "%")
    return {
        "type": "http",
        "method": method.upper(),
        "scheme": scheme,
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "query_string": quote(query, safe=SENT_IN_QUERIES).encode(),
        "root_path": "",
        "headers": list(fields.items()),
    }


def _sent(name: str, value: str) -> bytes:
    """The value of a header field (RFC 9110 §5.5); no error repeats it, it may be a secret."""
    if not _is_token(name):
        raise ValueError(f"{name!r} is no name of a header: it must be a token, such as Accept")
    try:
        sent = value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"the header {name!r} must have a value in Latin-1") from None
    if any(byte in sent for byte in b"\r\n\0"):
        raise ValueError(f"the header {name!r} must have a value without CR, LF and NUL")
    return sent


def _is_token(text: str) -> bool:
    return text.isascii() and is_token(text.encode())


def explain(cache: ResponseCache, scope: Scope) -> tuple[dict[str, Any], CacheRequest]:
    """What is stored of the scope's URL, and what this request would get; JSON-able."""
    for root in cache.roots:
        if scope["path"].encode(*TEXT).startswith(root + b"/"):
            scope = {**scope, "root_path": root.decode(*TEXT)}
    fields = dict(scope["headers"])
    host = fields.get(b"host")
    now_us = cache.clock()
    rule = cache.rules.rule_for(app_path(scope))
    silence = Silence()
    request = CacheRequest(
        scope,
        silence.receive,
        silence.send,
        host=host or b"",
        primary=primary_key(scope, host or b""),
        rule=rule,
        ignored_cookies=cache.special.ignored_cookies,
    )
    special, host_at = cache.special.of(list(scope["headers"]))
    if special is not None:
        request.take_special(special, with_directives=cache.options.request_directives)
    target = request.target
    entries = stored_of(cache, target, any_host=host is None)
    told = {
        "url": (path_of(target) if host is None else target).decode("utf-8", "replace"),
        "method": scope["method"],
        "rule": explained_rule(rule),
        "stored": [explained_entry(entry, now_us=now_us) for entry in entries],
        "last_refusal": cache.refused.last(request.primary),
    }
    if scope["method"] not in {"GET", "HEAD"}:
        return told | {"verdict": f"{scope['method']} is never answered from the store"}, request
    if host_at == SEVERAL_HOSTS:
        # And nothing else that it says is looked at.
        return told | {"verdict": "bypass: host"}, request
    found = _found(cache, request, special, personal(scope), entries, any_host=host is None)
    return told | {"verdict": verdict_on(found, request.directives, now_us=now_us)}, request


def stored_of(cache: ResponseCache, target: bytes, *, any_host: bool) -> list[StoredResponse]:
    """What is stored of a URL, also by a rule that chose some parameters of its query."""
    path = path_of(target)
    found = cache.store.of_path(path)
    bare, query, _ = path.partition(b"?")
    if query:
        found += [entry for entry in cache.store.of_path(bare) if entry.is_of_any_query]
    origin = origin_of(target)
    return [entry for entry in found if any_host or origin_of(entry.target) == origin]


def _found(
    cache: ResponseCache,
    request: CacheRequest,
    special: Special | None,
    whose: str | None,
    entries: list[StoredResponse],
    *,
    any_host: bool,
) -> StoredResponse | str:
    """The stored response that decides about `request`, or why none does.

    In the order of `ResponseCacheMiddleware`.
    """
    rule, credentials = request.rule, request.credentials
    if special is not None and special.is_out:
        return "bypass: precondition or body"
    is_unkeyed = (
        rule is None
        and not isinstance(cache.store.peek(request.primary), Variants)
        and not cache.options.authorization_by_rfc
    )
    if credentials and is_unkeyed and not any_host:
        return f"bypass: {credentials_reason(credentials)}"
    if rule is not None and rule.bypass:
        return f"bypass: the rule {rule.name} says never"
    if not request.take_rule(rule):
        return "bypass: the rule's key keeps this request out"
    if whose is not None and not (rule is not None and rule.is_for_all_or_one):
        return f"bypass: {whose}"
    primary = request.primary
    if any_host:
        # A line feed parts the host from the rest of a key: one that alone has the rest is meant.
        rest = primary.partition(b"\n")[2]
        having = {each.primary for each in entries if each.primary.partition(b"\n")[2] == rest}
        primary = having.pop() if len(having) == 1 else primary
    found = selected(cache, primary, request.lines)
    if found is not None:
        is_safe = found.is_safe_for(credentials)
    else:
        is_safe = not credentials or (rule is not None and rule.covers(credentials))
    if not is_safe:
        return f"bypass: {credentials_reason(credentials)}"
    return found or "miss: nothing is stored for it; the app is asked"


def selected(
    cache: ResponseCache, primary: bytes, lines: Mapping[bytes, list[bytes]]
) -> StoredResponse | None:
    """The stored response that a request would get, without counting it as asked for."""
    found = cache.store.peek(primary)
    if isinstance(found, Variants):
        key = found.key_for(lines)
        found = None if key is None else cache.store.peek(key)
    return found if isinstance(found, StoredResponse) else None
