"""Other caches around the same route, each as its own documentation shows it, in memory.

What a peer takes to be the same request differs (cashews: the arguments that its key names;
hishel: the URL), and so does what it checks.  Where there is a choice it is the faster one, or both
are rows.

Not here, because they do not run beside the FastAPI that we support (0.165 when they were tried):
fast-cache-middleware 0.0.7 (its CacheConfig assigns to a dependency, which is frozen now),
starlette-caches 0.4.1 (wants Starlette 0.x).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import count
from typing import TYPE_CHECKING

from benchmarks.cache_apps import PREBUILT, STORE_FOR_AN_HOUR, TTL_S, app_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.cache_apps import Calls, Route
    from perf_middleware.asgi import ASGIApp, Receive, Scope, Send

_numbers = count(1)  # two peers keep their entries on a class: each app gets a namespace of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One row; `module` is what must be there to import, `distribution` what to install for it."""

    name: str
    distribution: str
    module: str
    build: Callable[[Route, Calls], ASGIApp]

    @property
    def installed(self) -> bool:
        return find_spec(self.module) is not None

    @property
    def label(self) -> str:
        """The name with the version that is measured."""
        return f"{self.distribution} {version(self.distribution)}{self.name}"


def fastapi_cache(route: Route, calls: Calls) -> ASGIApp:
    """`@cache`: JSON, its default, for values; for a Response, which that cannot keep, pickle."""
    from fastapi_cache import FastAPICache
    from fastapi_cache.backends.inmemory import InMemoryBackend
    from fastapi_cache.coder import JsonCoder, PickleCoder
    from fastapi_cache.decorator import cache

    FastAPICache.init(InMemoryBackend())  # the second and later calls of a process do nothing
    coder = JsonCoder if route.serialised else PickleCoder
    decorate = cache(expire=TTL_S, coder=coder, namespace=f"bench-{next(_numbers)}")
    return app_of(route, calls, decorate=decorate)


def cashews(route: Route, calls: Calls) -> ASGIApp:
    """The decorator on the endpoint."""
    from cashews import Cache

    cache = Cache()
    cache.setup("mem://")
    return app_of(route, calls, decorate=cache(ttl=TTL_S, key="large:{item}"))


def cashews_with_middlewares(route: Route, calls: Calls) -> ASGIApp:
    """The decorator, and its three middlewares for FastAPI, which add ETag and Cache-Control."""
    from cashews import Cache
    from cashews.contrib.fastapi import (
        CacheDeleteMiddleware,
        CacheEtagMiddleware,
        CacheRequestControlMiddleware,
    )

    cache = Cache()
    cache.setup("mem://")
    app = app_of(route, calls, decorate=cache(ttl=TTL_S, key="large:{item}"))
    app.add_middleware(CacheDeleteMiddleware)
    app.add_middleware(CacheEtagMiddleware, cache_instance=cache)
    app.add_middleware(CacheRequestControlMiddleware, cache_instance=cache)
    return app


def aiocache(route: Route, calls: Calls) -> ASGIApp:
    """`@cached` on the endpoint; what it returned is kept as it is."""
    from aiocache import cached

    decorate = cached(ttl=TTL_S, namespace=f"bench-{next(_numbers)}")
    return app_of(route, calls, decorate=decorate)


def fastapi_cachex(route: Route, calls: Calls) -> ASGIApp:
    """`@cache` on the endpoint, with its ETag."""
    from fastapi_cachex import BackendProxy, cache
    from fastapi_cachex.backends import MemoryBackend

    BackendProxy.set(MemoryBackend())
    return app_of(route, calls, decorate=cache(ttl=TTL_S))


class Hishel:
    """Its ASGI middleware over SQLite in memory: the connection is made where a loop runs."""

    def __init__(self, app: ASGIApp, *, rfc: bool) -> None:
        self._app = app
        self._rfc = rfc
        self._cache: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._cache is None:
            from anysqlite import connect
            from hishel import AsyncSqliteStorage
            from hishel.asgi import ASGICacheMiddleware

            connection = await connect(":memory:", isolation_level=None)
            storage = AsyncSqliteStorage(connection=connection, default_ttl=TTL_S)
            self._cache = ASGICacheMiddleware(self._app, storage=storage, rfc=self._rfc)
        await self._cache(scope, receive, send)


def hishel(route: Route, calls: Calls) -> ASGIApp:
    """By RFC 9111, its default: the app names the lifetime."""
    return Hishel(app_of(route, calls, cache_control=STORE_FOR_AN_HOUR), rfc=True)


def hishel_without_rfc(route: Route, calls: Calls) -> ASGIApp:
    """By method and URL alone."""
    return Hishel(app_of(route, calls), rfc=False)


PEERS = (
    Peer(
        name=", @cache",
        distribution="fastapi-cache2",
        module="fastapi_cache",
        build=fastapi_cache,
    ),
    Peer(name=", decorator", distribution="cashews", module="cashews", build=cashews),
    Peer(
        name=", decorator and middlewares",
        distribution="cashews",
        module="cashews",
        build=cashews_with_middlewares,
    ),
    Peer(name=", @cached", distribution="aiocache", module="aiocache", build=aiocache),
    Peer(
        name=", @cache", distribution="fastapi-cachex", module="fastapi_cachex",
        build=fastapi_cachex,
    ),
    Peer(name=" ASGI, RFC 9111", distribution="hishel", module="hishel", build=hishel),
    Peer(name=" ASGI, rfc=False", distribution="hishel", module="hishel", build=hishel_without_rfc),
)  # fmt: skip


# --- the same over Redis -------------------------------------------------------------------------


def redis_peers() -> list[RedisPeer]:
    """Those that are installed."""
    return [peer for peer in REDIS_PEERS if find_spec(peer.module) is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisPeer:
    """A cache whose entries are in the Redis at a URL."""

    distribution: str
    module: str
    build: Callable[[str, Calls], ASGIApp]

    @property
    def label(self) -> str:
        return f"{self.distribution} {version(self.distribution)}: hit from Redis"


def fastapi_cache_in_redis(url: str, calls: Calls) -> ASGIApp:
    """`@cache`, with pickle, for a Response."""
    from fastapi_cache import FastAPICache
    from fastapi_cache.backends.redis import RedisBackend
    from fastapi_cache.coder import PickleCoder
    from fastapi_cache.decorator import cache
    from redis.asyncio import Redis

    FastAPICache.reset()
    FastAPICache.init(RedisBackend(Redis.from_url(url)), prefix="perf-benchmark")
    decorate = cache(expire=TTL_S, coder=PickleCoder, namespace=f"peer-{next(_numbers)}")
    return app_of(PREBUILT, calls, decorate=decorate)


def cashews_in_redis(url: str, calls: Calls) -> ASGIApp:
    """The decorator on the endpoint."""
    from cashews import Cache

    cache = Cache()
    cache.setup(url, client_side=False)
    return app_of(PREBUILT, calls, decorate=cache(ttl=TTL_S, key="perf-benchmark:large:{item}"))


REDIS_PEERS = (
    RedisPeer(distribution="fastapi-cache2", module="fastapi_cache", build=fastapi_cache_in_redis),
    RedisPeer(distribution="cashews", module="cashews", build=cashews_in_redis),
)
