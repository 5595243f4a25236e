"""What the cache holds of a URL and what it would do with a request for it, in words.

The same decisions as for a real request, taken one after the other without any effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perf_middleware.caching.reuse import Reuse, decide_reuse, may_refresh
from perf_middleware.caching.stored import US_PER_S

if TYPE_CHECKING:
    from perf_middleware.caching.rules import CachePolicy
    from perf_middleware.caching.stored import StoredResponse
    from perf_middleware.caching.syntax.directives import RequestDirectives

WORDS = {
    Reuse.FRESH: "fresh: answered from the store",
    Reuse.STALE: "stale, and the request says that it may be: answered from the store",
    Reuse.REFRESH: "stale: answered from the store, and the app is asked behind it",
    Reuse.VALIDATE: "the app is asked first",
}
ONLY_STORED = "504: the request wants only what is stored, and nothing stored answers it"


def explained_entry(stored: StoredResponse, *, now_us: int) -> dict[str, Any]:
    """One stored response, JSON-able; times in whole seconds."""
    age_s = stored.age_s(now_us)
    return {
        "status": stored.status,
        "bytes": len(stored.body),
        "age_s": age_s,
        "ttl_s": (stored.fresh_until_us - now_us) // US_PER_S,
        "stale_while_revalidate_s": stored.lifetimes.stale_while_revalidate_s,
        "stale_if_error_s": stored.lifetimes.stale_if_error_s,
        "must_validate": stored.lifetimes.must_validate,
        "may_be_stale": stored.lifetimes.may_be_stale,
        "etag": None if stored.etag is None else stored.etag.opaque.decode("latin-1"),
        "vary": [name.decode("latin-1") for name in stored.vary],
        "tags": list(stored.tags),
        "route": stored.route,
        "rule": stored.rule_name,
        "hits": stored.hits,
    }


def explained_rule(rule: CachePolicy | None) -> dict[str, Any] | None:
    """What a rule says, JSON-able; only what it sets."""
    if rule is None:
        return None
    said: dict[str, Any] = {"name": rule.name}
    for name in (
        "ttl_s", "negative_ttl_s", "stale_while_revalidate_s", "stale_if_error_s",
        "shared", "bypass",
    ):  # fmt: skip
        value = getattr(rule, name)
        if value is not None and value is not False:
            said[name] = value
    if rule.private_by:
        said["private_by"] = "a function" if callable(rule.private_by) else list(rule.private_by)
    return said


def verdict_on(
    found: StoredResponse | str, directives: RequestDirectives | None, *, now_us: int
) -> str:
    """What a request with these would get, as one sentence; `found` may be why nothing was."""
    verdict = Reuse.VALIDATE
    if not isinstance(found, str):
        verdict = decide_reuse(found, directives, now_us=now_us)
    if verdict is Reuse.VALIDATE and directives is not None and directives.only_if_cached:
        return ONLY_STORED
    if verdict is Reuse.REFRESH and not may_refresh(directives):
        return "stale: answered from the store"
    return found if isinstance(found, str) else WORDS[verdict]
