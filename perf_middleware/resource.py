"""The lifespan plugin: opens resources in order around the app's lifespan, closes them in reverse.

    server:  startup ->                                                        -> shutdown
    ours:              open A, open B                            close B, close A
    the app:                           its start-up ... its end

All or nothing: if a required resource does not open, what was opened before it is closed and the
start-up fails with one sentence.  A resource that is not required degrades and says so.
Source: ASGI lifespan protocol 2.0.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from perf_middleware.cancellation import ENDING
from perf_middleware.errors import ResourceStartError
from perf_middleware.events import Events, ResourceChanged, ResourceState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from anyio.abc import TaskGroup

    from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("perf_middleware.lifespan")

LAST_WORDS = frozenset(
    {"lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed"}
)
CLOSE_SLICE_S = 0.5  # each resource gets at least this long to close, however slow the others were


class Background(Protocol):
    """Runs a resource's long-lived tasks until the app stops."""

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run `run()` as a task.  It is cancelled after every resource has been closed, also where
        the resource did not open; if it raises, that is logged and counted and the app goes on.
        """


class Resource(Protocol):
    """Something that lives as long as the app: a pool, a sampler, a queue.

    `open` and `close` may each take only so long (the plugin sets the deadline by cancelling them).
    `close` is also called after an `open` that failed half way, and must then do no harm.
    """

    name: str
    required: bool

    async def open(self, background: Background) -> None: ...

    async def close(self) -> None: ...

    def status(self) -> dict[str, Any]:
        """A small JSON-able picture; cheap, never waits."""


class Resources:
    """The resources of one app and the state of each."""

    def __init__(
        self,
        resources: Sequence[Resource] = (),
        *,
        start_timeout_s: float = 30.0,
        drain_timeout_s: float = 10.0,
        events: Events | None = None,
    ) -> None:
        self._resources = list(resources)
        self._start_timeout_s = start_timeout_s
        self._drain_timeout_s = drain_timeout_s
        self._events = events or Events()
        self._states: dict[str, tuple[ResourceState, str]] = {
            resource.name: ("closed", "") for resource in resources
        }
        self._on_started: list[Callable[[], object]] = []
        self._before_ready: list[Callable[[Mapping[str, Any]], Awaitable[None]]] = []
        self._on_stopping: list[Callable[[], Awaitable[None]]] = []
        self.task_failures = 0
        self.running = False

    def when_started(self, do: Callable[[], object]) -> None:
        """Call `do` as soon as the app itself has started too: from now on it serves."""
        self._on_started.append(do)

    def note_started(self) -> None:
        """The app has said that it has started."""
        for do in self._on_started:
            do()

    def before_ready(self, do: Callable[[Mapping[str, Any]], Awaitable[None]]) -> None:
        """Await `do(state)` once the app has started, before the server hears of it.

        `state` is that of the app's lifespan.  `do` bounds its own time: nobody is served before.
        """
        self._before_ready.append(do)

    async def make_ready(self, state: Mapping[str, Any]) -> None:
        """The app has started: what is to be done before anybody is served."""
        for do in self._before_ready:
            try:
                await do(state)
            except Exception:
                logger.exception("something that goes before the first request failed")

    def when_stopping(self, do: Callable[[], Awaitable[None]]) -> None:
        """Await `do()` as the server stops, before the app's own lifespan ends: what still runs
        there finds the app whole.  It sets its own deadline.
        """
        self._on_stopping.append(do)

    async def note_stopping(self) -> None:
        """The server has said that it stops."""
        for do in self._on_stopping:
            try:
                await do()
            except Exception:
                logger.exception("stopping goes on without what failed")

    def add(self, resource: Resource) -> None:
        """Open `resource` after those known so far; only before the start."""
        if self.running:
            raise RuntimeError("resources can only be added before the app has started")
        members = ("name", "required", "open", "close", "status")
        lacking = [member for member in members if not hasattr(resource, member)]
        if lacking:
            raise TypeError(f"{resource!r:.100} is no resource: it has no {', '.join(lacking)}")
        if resource.name in self._states:
            raise ValueError(f"there is a resource named {resource.name!r} already")
        self._resources.append(resource)
        self._states[resource.name] = ("closed", "")

    def note(self, resource: Resource, state: ResourceState, reason: str = "") -> None:
        """An open resource has degraded, or has recovered; nothing before it was opened."""
        known, why = self._states[resource.name]
        if known in {"open", "degraded"} and (known, why) != (state, reason):
            self._set(resource, state, reason)

    def status(self) -> dict[str, dict[str, Any]]:
        """State, reason and own picture of each resource, by name, in the order of opening."""
        picture: dict[str, dict[str, Any]] = {}
        for resource in self._resources:
            state, reason = self._states[resource.name]
            entry: dict[str, Any] = {"state": state, "required": resource.required}
            if reason:
                entry["reason"] = reason
            try:
                detail = resource.status()
            except Exception as exc:  # noqa: BLE001 - an observer's failure is a value here
                detail = {"error": f"{type(exc).__name__}: {exc}"}
            if detail:
                entry["detail"] = detail
            picture[resource.name] = entry
        return picture

    def states(self) -> dict[str, tuple[ResourceState, str]]:
        """State and reason of each resource."""
        return dict(self._states)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Everything is open inside the block and closed after it.

        Raises ResourceStartError when a required resource does not open.  An exception of the block
        comes out as it is, after the closing.
        """
        if self.running:
            raise RuntimeError("the resources of this app are running already")
        self.running = True
        error: BaseException | None = None
        try:
            async with anyio.create_task_group() as tasks:
                begun: list[Resource] = []
                try:
                    await self._open_all(begun, _Supervisor(tasks, self))
                    yield
                except anyio.get_cancelled_exc_class():
                    raise
                except BaseException as exc:  # noqa: BLE001 - raised again below, outside the group
                    # A task group would wrap it; an app's error or SystemExit must stay what it is.
                    error = exc
                finally:
                    await self._close_all(begun)
                    tasks.cancel_scope.cancel()
        finally:
            self.running = False
        if error is not None:
            raise error

    async def _open_all(self, begun: list[Resource], background: Background) -> None:
        for resource in self._resources:
            begun.append(resource)
            self._set(resource, "opening")
            reason = await self._open(resource, background)
            if reason is None:
                self._set(resource, "open")
            elif resource.required:
                self._set(resource, "failed", reason)
                raise ResourceStartError(resource.name, reason)
            else:
                self._set(resource, "degraded", reason)
                logger.warning(
                    "%s is not available, going on without it: %s", resource.name, reason
                )

    async def _open(self, resource: Resource, background: Background) -> str | None:
        """Why the resource did not open, or None when it did."""
        with anyio.move_on_after(self._start_timeout_s) as scope:
            try:
                await resource.open(background)
            except Exception as exc:  # noqa: BLE001 - whatever a client library raises, it did not open
                return f"{type(exc).__name__}: {exc}"
        return f"not open after {self._start_timeout_s:g} s" if scope.cancelled_caught else None

    async def _close_all(self, begun: list[Resource]) -> None:
        interrupted: BaseException | None = None
        until = monotonic() + self._drain_timeout_s
        while begun:
            resource = begun.pop()
            state, reason = self._states[resource.name]
            self._set(resource, "closing", reason)
            left_s = max(until - monotonic(), CLOSE_SLICE_S)
            # Shielded: closing goes on, within its own deadline, also when the start was cancelled.
            try:
                with anyio.move_on_after(left_s, shield=True) as scope:
                    try:
                        await resource.close()
                    except Exception:
                        logger.exception("%s failed to close", resource.name)
            except anyio.get_cancelled_exc_class() as exc:
                # asyncio's own Task.cancel() passes every shield: the others are closed first.
                interrupted = exc
            if scope.cancelled_caught:
                logger.error(
                    "%s did not close within %.1f s and was abandoned", resource.name, left_s
                )
            self._set(resource, "failed" if state == "failed" else "closed", reason)
        if interrupted is not None:
            raise interrupted

    def _set(self, resource: Resource, state: ResourceState, reason: str = "") -> None:
        self._states[resource.name] = (state, reason)
        self._events.publish(ResourceChanged(resource=resource.name, state=state, reason=reason))


class _Supervisor:
    """The Background of one run: a task that fails is logged, the others and the app go on."""

    def __init__(self, tasks: TaskGroup, owner: Resources) -> None:
        self._tasks = tasks
        self._owner = owner

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        self._tasks.start_soon(self._supervised, name, run, name=f"perf_middleware: {name}")

    async def _supervised(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        try:
            await run()
        except (*ENDING, anyio.get_cancelled_exc_class()):
            raise
        except BaseException:  # SystemExit too: it would end every resource, and the app serve on
            self._owner.task_failures += 1
            logger.exception("the background task %r failed", name)


class LifespanPlugin:
    """Runs the resources around the app's own lifespan, on the server's lifespan messages.

    An app that takes no part in the lifespan protocol gets its resources all the same.  Where the
    resources run already (two servers or two test clients on one app), they serve both until
    the first start ends, and only the app's own lifespan runs once more.

    `last_word_s` is how long the app may go on after it has said that it has stopped.
    """

    def __init__(self, app: ASGIApp, *, resources: Resources, last_word_s: float = 10.0) -> None:
        self.app = app
        self._resources = resources
        self._last_word_s = last_word_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        talk = _Talk(
            await receive(), receive, send,
            last_word_s=self._last_word_s, on_started=self._started(scope),
            on_stopping=self._resources.note_stopping,
        )  # fmt: skip
        if self._resources.running:
            logger.warning("this app is started once more; the resources of its first start serve")
            await self.app(scope, talk.receive, send)
            return
        opened = False
        try:
            async with self._resources.opened():
                opened = True
                await self._live(scope, talk)
        except BaseException as exc:
            if isinstance(exc, ResourceStartError) and not opened:
                logger.error("%s", exc)  # noqa: TRY400 - one clear sentence, the cause is in it
                await send({"type": "lifespan.startup.failed", "message": str(exc)})
                # As Starlette does: its TestClient takes a return for a start that went well, and
                # waits at the end for ever.  Servers, which have been told, are silent about it.
                raise
            if talk.last_word is not None:
                await send(talk.last_word)
            raise
        await send(talk.last_word or {"type": "lifespan.shutdown.complete"})

    def _started(self, scope: Scope) -> Callable[[], Awaitable[None]]:
        resources = self._resources
        is_first = not resources.running  # else the first start has made all ready

        async def started() -> None:
            resources.note_started()
            if is_first:
                await resources.make_ready(scope.get("state") or {})

        return started

    async def _live(self, scope: Scope, talk: _Talk) -> None:
        """The app's own lifespan; what it leaves unsaid is said for it."""
        try:
            with talk.scope:
                await self.app(scope, talk.receive, talk.send)
        except Exception as exc:
            if talk.heard or talk.started or talk.last_word is not None:
                raise
            # Servers take an exception of an app that did not even listen as "no lifespan here".
            logger.info(
                "the app takes no part in the ASGI lifespan (%s: %s)", type(exc).__name__, exc
            )
        if talk.last_word is None:
            if not talk.started:
                await talk.send({"type": "lifespan.startup.complete"})
            if not talk.stopping:
                await talk.receive_next()


class _Talk:
    """The lifespan messages between the server and the app: the app's last word waits for ours.

    The server may end the process on a last word, so our resources close before it is passed on.
    """

    def __init__(
        self,
        startup: Message,
        receive: Receive,
        send: Send,
        *,
        last_word_s: float,
        on_started: Callable[[], Awaitable[None]],
        on_stopping: Callable[[], Awaitable[None]],
    ) -> None:
        self._startup = startup
        self._receive = receive
        self._send = send
        self._last_word_s = last_word_s
        self._on_started = on_started
        self._on_stopping = on_stopping
        self.scope = anyio.CancelScope()
        self.heard = False
        self.started = False
        self.stopping = False
        self.last_word: Message | None = None

    async def receive(self) -> Message:
        if not self.heard:
            self.heard = True
            return self._startup
        if self.last_word is not None:
            # Many apps listen in an endless loop: nothing comes any more, and the server waits.
            self.scope.cancel()
        return await self.receive_next()

    async def receive_next(self) -> Message:
        message = await self._receive()
        if not self.stopping:
            self.stopping = True
            if self.started:
                await self._on_stopping()
        return message

    async def send(self, message: Message) -> None:
        if message["type"] in LAST_WORDS:
            self.last_word = message
            self.scope.deadline = anyio.current_time() + self._last_word_s
            return
        if message["type"] == "lifespan.startup.complete" and not self.started:
            self.started = True
            await self._on_started()
        await self._send(message)
