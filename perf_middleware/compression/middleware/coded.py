"""One answer to a client that accepts a coding of ours, message by message.

    WAITING --start--> HOLDING --whole body-------> PASSING     head, body, exact length
       |                  |------first of several-> STREAMING   head, piece + flush, ... the end
       |                  `------anything else----> PASSING     as it was
       |--start of an event stream----------------> STREAMING   its head waits for no event
       `--start that is not worth it--------------> PASSING

A hit whose form and head are known waits as READY, and is HOLDING where another body comes.

The head is held until the first message of the body, because only that tells the length.  A piece
that did not get out would leave a hole that no decoder of a stream can jump: after one the answer
is broken for good, so that its client sees it end early instead of getting other bytes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from perf_middleware.coded_forms import FORMS, NEW_FORMS, forms_of
from perf_middleware.compression.encoding import (
    ENCODED,
    EVENTS,
    coded,
    not_modified,
    readable,
    said_of_body,
    varied,
)
from perf_middleware.compression.middleware.ready import is_its_body, known_head, ready_answer
from perf_middleware.compression.middleware.whole import encoded, hiding_encoder
from perf_middleware.compression.pressure import IDENTITY
from perf_middleware.compression.runtime import piece_of

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from perf_middleware.asgi import Message, Scope, Send
    from perf_middleware.coded_forms import CodedHead, Forms
    from perf_middleware.coding_choice import Choice
    from perf_middleware.compression.codecs import Encoder
    from perf_middleware.compression.runtime import Coding, Compression

WAITING: Final = 0
HOLDING: Final = 1
STREAMING: Final = 2
PASSING: Final = 3
READY: Final = 4
"""As HOLDING, and the coded head is known: it goes out if the body that it belongs to follows."""
HELD: Final = frozenset({HOLDING, READY})
_OURS: Final = frozenset({FORMS, NEW_FORMS})
FILES: Final = frozenset({"http.response.pathsend", "http.response.zerocopysend"})


class CodedAnswer:
    """Stands between the app and the server for one answer; `close` it when the app has returned.

    `asked` is the If-None-Match of the client, where the app was asked another one; `choice` what a
    rule says of its path; `as_identity` why it gets no coding, whatever it accepts.

    Whoever makes one sets `compression`, `codings`, `scope`, `passed_on` and `stage`: an `__init__`
    takes as long as all of them.  What is seldom set has its default in the class.
    """

    asked = b""
    choice: Choice | None = None
    as_identity: str | None = None
    encoder: Encoder | None = None
    _in_thread: anyio.Event | None = None
    _left_bytes: int | None = None
    """How much of the body is still to come, where the app has said."""
    compression: Compression
    codings: tuple[Coding, ...]
    scope: Scope
    passed_on: Send
    stage: int
    _start: Message
    _known: CodedHead
    """While it is READY: what goes out where the held head is followed by its body."""
    _mark: int | None = None
    """Of a body whose form is to be kept: it came before."""
    _hides: bool
    _step: int

    def send(self, message: Message) -> Awaitable[None]:
        """Not a coroutine function: what passes as it is costs no frame of ours."""
        stage = self.stage
        if stage == PASSING:
            send = self.passed_on  # what is no method is found faster as an attribute
            return send(message)
        if stage == READY:
            return self._after_ready(message)
        kind = message["type"]
        if stage == WAITING and kind == "http.response.start":
            return self._head(message)
        if kind == "http.response.body":
            if type(message.get("body", b"")) is not bytes:
                message = {**message, "body": bytes(message["body"])}
            if stage == STREAMING:
                return self._next(message)
            return self._first(message) if stage == HOLDING else self.passed_on(message)
        if stage == HOLDING:
            return self._release(message, "file" if kind in FILES else None)
        if stage == STREAMING and kind in FILES:
            raise RuntimeError(f"{kind} cannot follow a body that is being encoded")
        return self.passed_on(message)

    # --- the head -------------------------------------------------------------------------------

    def _head(self, message: Message) -> Awaitable[None]:
        headers = message.get("headers")
        if type(headers) is not list:
            message, headers = readable(message)
        scope = self.scope
        if FORMS in scope and self.choice is None and self.as_identity is None:
            known = ready_answer(scope, message, headers, self.codings[0].name)
            if known is not None:
                self._start, self._known = message, known
                self.stage = READY
                return _nothing()
        compression = self.compression
        status = message.get("status")
        verdict = compression.judge.judge(status, headers)
        if verdict not in ENCODED:
            if status == 200:  # the most frequent, in the fewest steps
                self.stage = PASSING
                compression.figures.skipped[verdict] += 1
                send = self.passed_on
                return send(message)
            if isinstance(status, int) and status < 200:
                return self.passed_on(message)  # interim: the answer follows it
            if status == 304 and self.asked:
                suffixes = [coding.suffix for coding in self.codings]
                headers = not_modified(headers, self.asked, suffixes)
                message = {**message, "headers": headers}
            return self._pass(message, verdict)
        if message.get("trailers"):
            return self._pass(message, "trailers")
        self._start = message
        self.stage = HOLDING
        if verdict == EVENTS:
            why = self._refusal()
            if why is not None:
                return self._release(None, why, vary=why != "route")
            is_head = self.scope["method"] == "HEAD"
            return self._send_coded_head() if is_head else self._begin_events()
        return _nothing()

    def _refusal(self) -> str | None:
        """Why an answer that is worth encoding is not; what is left to know where it is."""
        compression = self.compression
        choice = compression.choice_for(self.scope, self._start, self.choice)
        if not choice.encode:
            return "route"
        self._hides = choice.hide_length
        self._step = step = compression.step()
        return self.as_identity or ("pressure" if step >= IDENTITY else None)

    def _pass(self, message: Message, why: str) -> Awaitable[None]:
        self.stage = PASSING
        self.compression.figures.skipped[why] += 1
        return self.passed_on(message)

    def _release(
        self, message: Message | None, why: str | None, *, vary: bool = False
    ) -> Awaitable[None]:
        """Send the head that was held as it is, then `message`."""
        self.stage = PASSING
        if why is not None:
            self.compression.figures.skipped[why] += 1
        start = self._start
        if vary:
            start = {**start, "headers": varied(start["headers"])}
        if message is None:
            return self.passed_on(start)
        if FORMS in message or NEW_FORMS in message:  # no server's business
            message = {key: value for key, value in message.items() if key not in _OURS}
        return self._both(start, message)

    async def release_head(self) -> None:
        """The app has ended and sent no body: what it did send is the server's to judge."""
        await self._release(None, None)

    async def _send_coded_head(
        self,
        body_bytes: int | None = None,
        message: Message | None = None,
        *,
        next_stage: int = PASSING,
    ) -> None:
        """The head of the coded answer, then `message`."""
        start, coding = self._start, self.codings[0]
        self.stage = next_stage
        headers = coded(
            start["headers"],
            coding.content_encoding,
            suffix=coding.suffix if self.scope["method"] in ("GET", "HEAD") else b"",
            body_bytes=body_bytes,
        )
        start = {**start, "headers": headers}
        if message is None:
            await self.passed_on(start)
        else:
            await self._both(start, message)

    # --- a whole body ---------------------------------------------------------------------------

    def _after_ready(self, message: Message) -> Awaitable[None]:
        compression, known = self.compression, self._known
        compression.collect()
        if is_its_body(known, message):
            compression.step()  # of the CPU's pressure also hits are to learn
            return self._as_known(message, self.codings[0], known)
        self.stage = HOLDING
        return self.send(message)

    def _first(self, message: Message) -> Awaitable[None]:
        compression = self.compression
        body = message.get("body", b"")
        is_whole = not message.get("more_body")
        is_head = self.scope["method"] == "HEAD"
        if is_whole and len(body) < compression.judge.minimum_bytes and (body or not is_head):
            return self._release(message, "small")
        compression.collect()
        why = self._refusal()
        length, may_keep = said_of_body(self._start["headers"])
        if not is_head and why in (None, "pressure") and not self._hides:
            # A form that is ready costs nothing, however scarce the CPU is.
            forms = forms_of(message, self.scope, FORMS)
            if forms is not None and (is_whole or length == len(body)):
                return self._from_store(message, forms)
            repeats = compression.repeats
            if is_whole and repeats is not None and may_keep and length in (None, len(body)):
                coding = self.codings[0]
                # Where nothing is encoded now, the level is the cheap one: every form will do.
                form, self._mark = repeats.meet(body, coding.name, coding.level(self._step))
                if form is not None:
                    coding.counts.repeated += 1
                    return self._send_whole(message, form)
        if why is not None:
            return self._release(message, why, vary=why != "route")
        if is_head and not FILES.isdisjoint(self.scope.get("extensions") or ()):
            # Its GET may be a file that the server sends itself, which is never encoded.
            return self._release(message, "file", vary=True)
        if is_head:
            # Its GET is encoded.  How long that gets is not known without doing it (§9.3.2).
            return self._send_coded_head(message=message)
        if is_whole:
            if length not in (None, len(body)):
                return self._release(message, "malformed")  # the server has to see that
            return self._whole(message, body)
        if length == len(body) and forms_of(message, self.scope, NEW_FORMS) is not None:
            return self._whole(message, body)
        if self.scope.get("http_version") == "1.0":
            return self._release(message, "http-1.0", vary=True)  # it knows no chunks
        return self._begin(message, length)

    async def _whole(self, message: Message, body: bytes) -> None:
        compression, coding, step = self.compression, self.codings[0], self._step
        form = await encoded(compression, coding, body, step=step, hides=self._hides)
        if form is None:
            return await self._release(message, None, vary=True)
        coding.counts.whole += 1
        if self._mark is not None and compression.repeats is not None:
            compression.repeats.keep(self._mark, body, coding.name, coding.level(step), form)
        return await self._send_whole(message, form)

    def _send_whole(self, message: Message, form: bytes) -> Awaitable[None]:
        """The coded answer, also to a cache that has just stored its body."""
        forms = None if self._hides else forms_of(message, self.scope, NEW_FORMS)
        if forms is not None:
            forms.remember(self.codings[0].name, form)
        message = {**message, "body": form}
        message.pop(NEW_FORMS, None)
        return self._send_coded_head(len(form), message)

    def _from_store(self, message: Message, forms: Forms) -> Awaitable[None]:
        """A stored body, in a form that is ready: nobody waits for a codec."""
        ready = self.compression.kept_form(self.codings, forms)
        if ready is None:
            return self._release(message, "no-form", vary=True)
        coding, form = ready
        if self.scope["method"] != "GET":  # it was another one where the answer was looked up
            self.codings = (coding,)
            coding.counts.stored += 1
            message = {**message, "body": form}
            message.pop(FORMS, None)
            return self._send_coded_head(len(form), message)
        plain, known = self._start["headers"], forms.coded_head
        if known is None or known[0] is not form or known[1] != plain:
            is_best = coding is self.codings[0]
            known = forms.coded_head = known_head(coding, form, plain, forms, is_best=is_best)
        return self._as_known(message, coding, known)

    def _as_known(self, message: Message, coding: Coding, known: CodedHead) -> Awaitable[None]:
        coding.counts.stored += 1
        self.stage = PASSING
        form, _, headers, _ = known
        start, message = {**self._start}, {**message}
        # A new list each time: a layer outside may edit it in place.
        start["headers"], message["body"] = headers.copy(), form
        message.pop(FORMS, None)
        return self._both(start, message)

    async def _both(self, start: Message, message: Message) -> None:
        send = self.passed_on
        await send(start)
        await send(message)

    # --- a stream -------------------------------------------------------------------------------

    def _begin_events(self) -> Awaitable[None]:
        """The head of an event stream leaves at once: its first event may be a minute away."""
        if not self._open(stays_open=True):
            return self._release(None, None, vary=True)
        return self._send_coded_head(next_stage=STREAMING)

    async def _begin(self, message: Message, length: int | None) -> None:
        self._left_bytes = length
        if not self._open(stays_open=self._left_bytes is None):
            return await self._release(message, None, vary=True)
        await self._send_coded_head(next_stage=STREAMING)
        return await self._next(message)

    def _open(self, *, stays_open: bool) -> bool:
        """Get an encoder, if there is room for one more stream."""
        compression, coding = self.compression, self.codings[0]
        if compression.figures.streams >= compression.streams_max:
            compression.figures.skipped["busy"] += 1
            return False
        try:
            self.encoder = (
                hiding_encoder(compression, coding, self._step, stays_open=stays_open)
                if self._hides
                else coding.encoder(self._step, stays_open=stays_open)
            )
        except Exception as error:  # noqa: BLE001 - as for a whole body
            compression.note_failure(error)
            return False
        compression.figures.streams += 1
        coding.counts.stream += 1
        return True

    async def _next(self, message: Message) -> None:
        is_last = not message.get("more_body")
        while self._in_thread is not None:  # another task's piece
            await self._in_thread.wait()
        if self.encoder is None:
            raise RuntimeError("a piece of this coded body was not sent: nothing can follow it")
        try:
            body = message.get("body", b"")
            if self._left_bytes is not None:
                self._note_length(len(body), is_last=is_last)
            piece = await self._piece(self.encoder, body, is_last=is_last)
            if is_last:
                self.close()
                self.stage = PASSING
            await self.passed_on({**message, "body": piece})
        except BaseException:
            self.close()  # before those who wait for a thread go on
            raise

    def _note_length(self, size_bytes: int, *, is_last: bool) -> None:
        """Raises RuntimeError where the server would have: the client must see it is not whole."""
        left_bytes = self._left_bytes = (self._left_bytes or 0) - size_bytes
        if left_bytes < 0 or (is_last and left_bytes):
            raise RuntimeError("the body has another length than its Content-Length says")

    async def _piece(self, encoder: Encoder, body: bytes, *, is_last: bool) -> bytes:
        if not body and not is_last:
            return b""  # says nothing, and only asks the server to send what it has
        compression, coding = self.compression, self.codings[0]
        if len(body) >= compression.thread_bytes_min:
            self._in_thread = anyio.Event()
            try:
                piece, busy_ns = await compression.in_thread(
                    partial(piece_of, encoder, body, is_last=is_last)
                )
            finally:
                self._in_thread.set()
                self._in_thread = None
        else:
            piece, busy_ns = piece_of(encoder, body, is_last=is_last)
        coding.count(body, piece, busy_ns)
        return piece

    def close(self) -> None:
        """Let the encoder go; it is called once more than there are ends."""
        if self.encoder is not None:
            self.encoder = None
            self.compression.figures.streams -= 1


async def _nothing() -> None:
    """A message that is held counts as sent."""
