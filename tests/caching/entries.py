"""Stored responses in one go, where the product works in steps."""

from perf_middleware.caching.cache_status import CacheStatus
from perf_middleware.caching.invalidation import target_of
from perf_middleware.caching.stored import US_PER_S, Lifetimes, StoredResponse
from perf_middleware.caching.syntax.dates import format_http_date

NOW_S = 1_800_000_000
S = US_PER_S
STATUS = CacheStatus("ours")


def date(unix_s):
    """A date field's value."""
    return format_http_date(unix_s)


def entry(
    path=b"/a",
    *headers,
    key=None,
    host=b"h",
    status=200,
    lines=None,
    body=b"body",
    initial_age_us=0,
    now_us=0,
    vary=(),
    tags=(),
    rule=None,
    **lifetimes,
):
    """A stored response of `http://h` + `path`; without more it is fresh for a minute."""
    primary = b"http://" + host + b"\n" + path
    return StoredResponse(
        primary=primary,
        key=primary if key is None else key,
        target=target_of("http", host, *path.partition(b"?")[::2]),
        status=status,
        headers=list(headers),
        lines={} if lines is None else lines,
        body=body,
        lifetimes=Lifetimes(**({"fresh_s": 60} | lifetimes)),
        initial_age_us=initial_age_us,
        produced_us=0,
        now_us=now_us,
        vary=vary,
        tags=tags,
        route="/a",
        rule=rule,
    )
