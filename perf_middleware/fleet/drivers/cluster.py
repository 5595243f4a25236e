"""The same for a Redis cluster: commands go where their keys are, messages come from one node.

What a script publishes on any node of a cluster reaches the subscribers of all of them.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    NoScriptError,
    RedisClusterException,
    RedisError,
    ResponseError,
)

from perf_middleware.errors import StoreRefusedError, StoreUnavailableError
from perf_middleware.fleet.drivers.link import RedisLink
from perf_middleware.fleet.drivers.port import (
    GRACE_S,
    SCANNED_AT_ONCE,
    STORE,
    closed,
    literal,
    require_loop,
    told,
)
from perf_middleware.fleet.url import for_connecting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from perf_middleware.fleet.stores.script import Script

REDIRECTIONS_MAX = 3  # a slot that moves answers with where it went


class ClusterLink:
    """Commands over redis-py's cluster client; up and down goes by the link that hears messages."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        connect_timeout_s: float,
        heartbeat_s: float,
        waiting_max: int,
    ) -> None:
        self._bus = RedisLink(
            url,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            heartbeat_s=heartbeat_s,
            waiting_max=waiting_max,
        )
        self._url = for_connecting(url)
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._waiting_max = waiting_max
        self._cluster: Any = None
        self._scripts: set[tuple[str, str]] = set()  # and the nodes that were told
        self._loop: asyncio.AbstractEventLoop | None = None
        self.shown_url = self._bus.shown_url
        self.why_down = self._bus.why_down
        self.commands = 0
        self.timeouts = 0
        self.refusals = 0
        self.waiting = 0

    @property
    def is_up(self) -> bool:
        return self._bus.is_up

    def server_ms(self) -> int:
        return self._bus.server_ms()

    @property
    def channels(self) -> tuple[bytes, ...]:
        return self._bus.channels

    @channels.setter
    def channels(self, channels: tuple[bytes, ...]) -> None:
        self._bus.channels = channels

    @property
    def on_message(self) -> Callable[[bytes, bytes], None]:
        return self._bus.on_message

    @on_message.setter
    def on_message(self, hear: Callable[[bytes, bytes], None]) -> None:
        self._bus.on_message = hear

    @property
    def connected(self) -> Callable[[], Awaitable[None]]:
        return self._bus.connected

    @connected.setter
    def connected(self, do: Callable[[], Awaitable[None]]) -> None:
        self._bus.connected = do

    @property
    def on_loss(self) -> Callable[[], None]:
        return self._bus.on_loss

    @on_loss.setter
    def on_loss(self, do: Callable[[], None]) -> None:
        self._bus.on_loss = do

    async def command(self, *words: bytes | str | int) -> Any:
        self._require_up()
        return await self._ask(words)

    async def get(self, key: bytes) -> bytes | None:
        found: bytes | None = await self.command("GET", key)
        return found

    async def get_several(self, *keys: bytes) -> list[bytes | None]:
        answer: list[bytes | None] = await self.command("MGET", *keys)
        return answer

    async def run(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes | str | int]
    ) -> Any:
        self._require_up()
        return await self.run_script(script, keys, arguments)

    async def run_script(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes | str | int]
    ) -> Any:
        if self._is_new_there(script, keys[0]):
            return await self._ask(("EVAL", script.text, len(keys), *keys, *arguments))
        try:
            return await self._ask(("EVALSHA", script.sha, len(keys), *keys, *arguments))
        except _NotKnownError:
            return await self._ask(("EVAL", script.text, len(keys), *keys, *arguments))

    def _is_new_there(self, script: Script, key: bytes) -> bool:
        """Whether the node of `key` was not told the text of `script` yet, as it is from now on."""
        try:
            node = self._cluster.get_node_from_key(key)
        except (AttributeError, RedisError, RedisClusterException):
            # Not connected, or nobody has its slot.
            return False
        there = script.sha, node.name
        is_new = there not in self._scripts
        self._scripts.add(there)
        return is_new

    async def subscribe(self, *channels: bytes) -> None:
        await self._bus.subscribe(*channels)

    async def scan(self, prefix: bytes) -> AsyncIterator[list[bytes]]:
        for node in self._cluster.get_primaries() if self._cluster is not None else ():
            cursor: bytes | int = 0
            while True:
                self._require_up()
                cursor, keys = await self._ask(
                    ("SCAN", cursor, "MATCH", literal(prefix) + b"*", "COUNT", SCANNED_AT_ONCE),
                    node=node,
                )
                if keys:
                    yield keys
                if int(cursor) == 0:
                    break

    def _require_up(self) -> None:
        if not self._bus.is_up:
            raise StoreUnavailableError(STORE, self.why_down)

    async def _ask(self, words: Sequence[bytes | str | int], node: Any = None) -> Any:
        cluster = self._cluster
        if cluster is None:
            raise StoreUnavailableError(STORE, self.why_down)
        require_loop(self._loop)
        if self.waiting >= self._waiting_max:
            raise StoreUnavailableError(STORE, f"{self._waiting_max} answers are awaited already")
        self.commands += 1
        self.waiting += 1
        try:
            async with _in_time(self._timeout_s):
                if node is None:
                    return await cluster.execute_command(*words)
                return await node.execute_command(*words)
        except NoScriptError as error:
            raise _NotKnownError from error
        except ResponseError as error:
            self.refusals += 1
            raise StoreRefusedError(STORE, str(error)) from error
        except TimeoutError as error:
            self.timeouts += 1
            raise self._lost(f"no answer within {self._timeout_s:g} s") from error
        except (RedisError, RedisClusterException, OSError) as error:
            raise self._lost(told(error)) from error
        finally:
            self.waiting -= 1

    def _lost(self, why: str) -> StoreUnavailableError:
        self.give_up(why)
        return StoreUnavailableError(STORE, why)

    def give_up(self, why: str) -> None:
        self.why_down = why
        self._bus.give_up(why)

    async def connect_once(self, changed: Callable[[bool, str], None]) -> None:
        """As `RedisLink.connect_once`."""
        self._loop = asyncio.get_running_loop()
        cluster: Any = None
        try:
            cluster = RedisCluster.from_url(
                self._url,
                socket_connect_timeout=self._connect_timeout_s,
                socket_timeout=self._timeout_s + self._connect_timeout_s,  # the shorter one is ours
                retry=Retry(NoBackoff(), REDIRECTIONS_MAX),
                decode_responses=False,
            )
            async with asyncio.timeout(2 * self._connect_timeout_s):
                await cluster.initialize()
            self._cluster, self._scripts = cluster, set()
            node = random.choice(cluster.get_primaries())  # noqa: S311 - no secret
            await self._bus.connect_once(changed, host=node.host, port=node.port)
            self.why_down = self._bus.why_down
        except Exception as error:  # noqa: BLE001 - garbage makes a client library raise anything
            self.why_down = told(error)
            changed(False, self.why_down)
        finally:
            self._cluster = None
            # The shield: anyio cancels a second time, and the connections would stay open.
            with anyio.CancelScope(shield=True):
                # Until its timeout: the client may still connect for whoever waits.
                while self.waiting:  # noqa: ASYNC110 - once in the life of a cluster client
                    await asyncio.sleep(GRACE_S)
                await _closed(cluster)


@asynccontextmanager
async def _in_time(seconds: float) -> AsyncIterator[None]:
    """As `asyncio.timeout`, and a moment more: an answer that came while the event loop was blocked
    is not a late one.
    """
    loop = asyncio.get_running_loop()

    def end(bound: asyncio.Timeout, due_s: float) -> None:
        now_s = loop.time()
        # It may take several steps, each of which has waited for the loop: to connect for one.
        bound.reschedule(now_s + (seconds if now_s - due_s > GRACE_S else GRACE_S))

    async with asyncio.timeout(None) as bound:
        timer = loop.call_later(seconds, end, bound, loop.time() + seconds)
        try:
            yield
        finally:
            timer.cancel()


async def _closed(cluster: Any) -> None:
    """Every connection, at once: the client's own way forgets those of an interrupted start."""
    if cluster is None:
        return
    manager = cluster.nodes_manager
    for node in (*manager.nodes_cache.values(), *manager.startup_nodes.values()):
        for connection in node._connections:  # noqa: SLF001 - see above
            await closed(connection)
    with suppress(Exception):  # it is gone either way
        await cluster.aclose()


class _NotKnownError(Exception):
    """The server does not know this script yet."""
