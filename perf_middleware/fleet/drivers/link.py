"""One connection to a Redis server, which all requests of the process use at once.

    request --- command ---.                        .--- answer --> request
    request --- command ----+--> one connection -->-+--- answer --> request
    purge   --- command ---'                        '--- message -> subscriber

Commands go out as they come and answers come back in their order (pipelining), so that a hundred
requests cost the server and us hardly more than one.  With RESP3 the messages of the channels that
we subscribe to come over the same connection, in order with the answers.

A request never connects, never retries and never waits longer than `timeout_s`: as soon as one
answer is late, the connection is given up, everybody who waits is released, and until `keep` has
made another one that answers in time every command fails at once.
Source: Redis serialization protocol 3; the circuit breaker of Nygard, Release It!, 2007.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import anyio
from redis.asyncio.connection import Connection, parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError

from perf_middleware.errors import StoreRefusedError, StoreUnavailableError
from perf_middleware.fleet.answers import AnswerReader, GarbageError, Pushed
from perf_middleware.fleet.drivers.port import (
    GRACE_S,
    SCANNED_AT_ONCE,
    STORE,
    closed,
    literal,
    require_loop,
    told,
)
from perf_middleware.fleet.url import for_connecting, shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from perf_middleware.fleet.stores.script import Script

NO_SOCKET: Final = -1  # that may be written to: what goes through TLS is the transport's
PROBES: Final = 3  # answers in time, one after the other, before it is used again
_GET: Final = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n"


class _Talk(asyncio.Protocol):
    """What the socket brings, from the moment on that redis-py has connected and signed in."""

    def __init__(self, link: RedisLink, reader: AnswerReader, before: Any) -> None:
        self._link = link
        self._feed = reader.feed
        self._before = before
        self.transport: Any = None

    def data_received(self, data: bytes) -> None:
        if not self._link.is_over(self.transport):
            return  # it was given up: nobody waits for this one's answers
        try:
            answers = self._feed(data)
        except GarbageError as error:
            self._link.give_up(told(error))
            return
        self._link.hear(answers)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._link.is_over(self.transport):
            self._link.give_up("the connection was lost" if exc is None else told(exc))
        self._before.connection_lost(exc)  # redis-py's own waits to hear it


class RedisLink:
    """A connection that is kept; `on_message(channel, payload)` hears what is published.

    Belongs to one event loop.  `connected()` is awaited with each new connection before it is used:
    whatever it raises is a failure to connect.  `on_loss()` is called as soon as it is given up.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        connect_timeout_s: float,
        heartbeat_s: float,
        waiting_max: int,
    ) -> None:
        options: dict[str, Any] = {**parse_url(for_connecting(url))}
        self._make = options.pop("connection_class", Connection)
        self._options = options
        self.shown_url = shown(url)
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._heartbeat_s = heartbeat_s
        self._waiting_max = waiting_max
        self._scripts: set[str] = set()  # that were told over this connection
        self._connection: Any = None
        self._transport: Any = None
        self._socket_number = NO_SOCKET
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._late_check: asyncio.TimerHandle | None = None
        self._suspect: asyncio.Future[Any] | None = None
        self._lost: asyncio.Future[str] | None = None
        self._ahead_ns = 0  # of our own clock, the server's
        self.is_up = False
        self.why_down = "not connected yet"
        self.commands = 0
        self.timeouts = 0
        self.refusals = 0
        self.channels: tuple[bytes, ...] = ()
        self.on_message: Callable[[bytes, bytes], None] = _ignore
        self.connected: Callable[[], Awaitable[None]] = _nothing_more
        self.on_loss: Callable[[], None] = _nothing

    def server_ms(self) -> int:
        return (time.perf_counter_ns() + self._ahead_ns) // 1_000_000

    def is_over(self, transport: Any) -> bool:
        """Whether commands go over this one."""
        return transport is not None and transport is self._transport

    @property
    def waiting(self) -> int:
        """How many answers are awaited."""
        return len(self._waiting)

    # --- what stores call -----------------------------------------------------------------------

    async def command(self, *words: bytes | str | int) -> Any:
        if not self.is_up:
            raise StoreUnavailableError(STORE, self.why_down)
        return await self.ask(*words)

    def get(self, key: bytes) -> asyncio.Future[bytes | None]:
        if not self.is_up:
            raise StoreUnavailableError(STORE, self.why_down)
        # The look-up of every hit: no coroutine of its own, and written out, for packing it costs
        # as much as sending it.
        return self.ask_packed(_GET % (len(key), key))

    async def get_several(self, *keys: bytes) -> list[bytes | None]:
        several: list[bytes | None] = await self.command("MGET", *keys)
        return several

    async def run(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes | str | int]
    ) -> Any:
        if not self.is_up:
            raise StoreUnavailableError(STORE, self.why_down)
        return await self.run_script(script, keys, arguments)

    async def scan(self, prefix: bytes) -> AsyncIterator[list[bytes]]:
        cursor: bytes | int = 0
        while True:
            cursor, keys = await self.command(
                "SCAN", cursor, "MATCH", literal(prefix) + b"*", "COUNT", SCANNED_AT_ONCE
            )
            if keys:
                yield keys
            if int(cursor) == 0:
                return

    # --- the same, also before `connected` has returned -----------------------------------------

    async def run_script(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes | str | int]
    ) -> Any:
        if script.sha not in self._scripts:
            # As text: its name alone would take a second round trip where nobody has told the text.
            self._scripts.add(script.sha)
            return await self.ask("EVAL", script.text, len(keys), *keys, *arguments)
        try:
            return await self.ask("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except NoScriptError:  # the server has let go of it
            return await self.ask("EVAL", script.text, len(keys), *keys, *arguments)

    async def subscribe(self, *channels: bytes) -> None:
        self._say("SUBSCRIBE", *channels)  # answered by messages
        await self.ask("PING")  # answered after it has begun to listen

    def ask(self, *words: bytes | str | int) -> asyncio.Future[Any]:
        if self._transport is None:
            raise StoreUnavailableError(STORE, self.why_down)
        return self.ask_packed(b"".join(self._connection.pack_command(*words)))

    def _refused(self, error: Exception) -> Exception:
        """What who asked is told in place of an error that the server has answered with."""
        if isinstance(error, NoScriptError):
            return error
        self.refusals += 1
        # Redis 6 puts it behind words of its own where a script meets it.
        if isinstance(error, ReadOnlyError) or "READONLY" in str(error):
            # A primary that has become a replica: its name may lead elsewhere by now.
            self.give_up(str(error))
            return StoreUnavailableError(STORE, str(error))
        return StoreRefusedError(STORE, str(error))

    def ask_packed(self, packed: bytes) -> asyncio.Future[Any]:
        """Send one command as it goes over the wire; its answer."""
        transport, loop = self._transport, self._loop
        if transport is None or loop is None:
            raise StoreUnavailableError(STORE, self.why_down)
        require_loop(loop)
        if transport.is_closing():
            self.give_up("the connection is closed")
            raise StoreUnavailableError(STORE, self.why_down)
        if len(self._waiting) >= self._waiting_max:
            raise StoreUnavailableError(STORE, f"{self._waiting_max} answers are awaited already")
        self.commands += 1
        is_alone = not self._waiting
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((answer, loop.time()))
        if self._late_check is None:
            self._late_check = loop.call_later(self._timeout_s, self._check_late)
        if is_alone and self._socket_number >= 0 and not transport.get_write_buffer_size():
            # uvloop sends when this turn of the loop is over, all that came together in one piece.
            # The first has nobody to wait for: the server may work on it meanwhile.
            try:
                sent = os.write(self._socket_number, packed)
            except OSError:
                sent = 0  # it is full, or broken: the transport deals with both
            if sent == len(packed):
                return answer
            packed = packed[sent:]
        # What the socket does not take at once the transport keeps: as much as may wait, and no
        # longer than the timeout.
        transport.write(packed)
        return answer

    # --- late answers ---------------------------------------------------------------------------

    def _check_late(self) -> None:
        self._late_check = None
        loop = self._loop
        if not self._waiting or loop is None:
            return
        oldest, asked_s = self._waiting[0]
        left_s = asked_s + self._timeout_s - loop.time()
        if left_s > 0:
            self._suspect = None
        elif self._suspect is oldest:
            self.timeouts += 1
            self.give_up(f"no answer within {self._timeout_s:g} s")
            return
        else:
            self._suspect = oldest
            left_s = GRACE_S
        self._late_check = loop.call_later(left_s, self._check_late)

    def give_up(self, why: str) -> None:
        """The connection is lost: everybody who waits is released now."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        transport.abort()
        self.is_up = False
        self.why_down = why
        if self._late_check is not None:
            self._late_check.cancel()
            self._late_check = None
        waiting, self._waiting = self._waiting, deque()
        for answer, _ in waiting:
            if not answer.done():
                answer.set_exception(StoreUnavailableError(STORE, why))
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(why)
        self.on_loss()

    # --- keeping the connection -----------------------------------------------------------------

    async def connect_once(self, changed: Callable[[bool, str], None], **node: Any) -> None:
        """Connect, serve until the connection is lost, and say why: returns, never raises for it.

        `changed(is_up, why)` is called when it begins to be used, and when that ends.  `node` is
        another host and port than the URL's.
        """
        self._loop = asyncio.get_running_loop()
        self._lost = self._loop.create_future()
        self._suspect = None
        connection: Any = None
        try:
            connection = self._make(
                **self._options | node, protocol=3, socket_timeout=None,
                socket_connect_timeout=self._connect_timeout_s, decode_responses=False,
            )  # fmt: skip
            async with asyncio.timeout(self._connect_timeout_s):
                await connection.connect()
            self._take_over(connection)
            for _ in range(PROBES):
                await self._look_at_its_clock()
            if self.channels:
                await self.subscribe(*self.channels)
            await self.connected()
            if not self._lost.done():  # with its last answer
                self.is_up = True
                changed(True, "")
            while not self._lost.done():
                await asyncio.wait([self._lost], timeout=self._heartbeat_s)
                if not self._lost.done():
                    await self._look_at_its_clock()
        except Exception as error:  # noqa: BLE001 - garbage makes a client library raise anything
            if self._transport is None and not self._lost.done():
                self.why_down = told(error)
            self.give_up(told(error))
        finally:
            self.give_up("closed")
            # The shield: anyio cancels a second time, and the connection would stay open.
            with anyio.CancelScope(shield=True):
                await closed(connection)
        changed(False, self.why_down)

    def _take_over(self, connection: Any) -> None:
        """From here on the bytes come to us: redis-py has resolved, connected and signed in."""
        transport = connection._writer.transport  # noqa: SLF001
        parser = connection._parser  # noqa: SLF001
        reader = AnswerReader(parser.parse_error)
        talk = _Talk(self, reader, transport.get_protocol())
        talk.transport = transport
        transport.set_protocol(talk)
        if transport.get_extra_info("sslcontext") is None:
            self._socket_number = transport.get_extra_info("socket").fileno()
        else:
            self._socket_number = NO_SOCKET
        self._connection, self._transport = connection, transport
        self._scripts = set()

    def _say(self, *words: bytes | str) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._connection.pack_command(*words)))

    async def _look_at_its_clock(self) -> None:
        """Also shows that it answers; right to half of the round trip (Cristian, 1989)."""
        asked_ns = time.perf_counter_ns()
        seconds, micros = await self.ask("TIME")
        midway_ns = (asked_ns + time.perf_counter_ns()) // 2
        self._ahead_ns = int(seconds) * 1_000_000_000 + int(micros) * 1_000 - midway_ns

    def hear(self, answers: list[Any]) -> None:
        """Give each answer to who waits for it: they come in the order of the questions."""
        for answer in answers:
            if type(answer) is Pushed:
                self._hear_message(answer.parts)
            elif isinstance(answer, RedisConnectionError):
                self.give_up(told(answer))  # it is loading, or wants another password by now
                return
            elif not self._waiting:
                self.give_up("it answers what nobody has asked")
                return
            else:
                asked, _ = self._waiting.popleft()
                if asked.done():
                    continue  # nobody waits for it any more
                if isinstance(answer, Exception):
                    refused = self._refused(answer)
                    refused.__cause__ = None if refused is answer else answer
                    asked.set_exception(refused)
                else:
                    asked.set_result(answer)

    def _hear_message(self, parts: list[Any]) -> None:
        if len(parts) == 3 and parts[0] == b"message":
            self.on_message(parts[1], parts[2])


def _nothing() -> None:
    return


async def _nothing_more() -> None:
    return


def _ignore(channel: bytes, payload: bytes) -> None:
    del channel, payload
