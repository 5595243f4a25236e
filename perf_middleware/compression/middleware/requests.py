"""Undoes the content codings of request bodies, as far as the app reads them.

    server --> receive --> DecodingChain --> the app's receive      one step for each message, and
                 |                                                  nothing before the app asks
                 `-- not as it should be: answer 4xx here, raise there

Decoded on the event loop: a step hands out 64 KiB at most and takes 60 us (zstd) to 210 us (gzip),
where a thread would take some 40 us of CPU more for each; between two steps others run.
Sources: RFC 9110 §8.4, §15.5.14 (413), §15.5.16 (415); RFC 7694 §3; RFC 9457 (problem+json).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio.lowlevel
from starlette.exceptions import HTTPException

from perf_middleware.asgi import header_pairs, tell_outside, telling_outside
from perf_middleware.compression.codecs import CorruptBodyError
from perf_middleware.compression.decoding import (
    CODINGS_MAX,
    DecodedTooLargeError,
    DecodingChain,
    UnknownCodingError,
    codings_of,
)
from perf_middleware.compression.drivers.available import available_decoding_codecs
from perf_middleware.compression.request_figures import RequestDecodingFigures
from perf_middleware.compression.settings import CompressionSettings
from perf_middleware.errors import PerfMiddlewareError, SettingsError
from perf_middleware.problem import send_problem
from perf_middleware.refusal import comes_from
from perf_middleware.standing_alone import section_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send
    from perf_middleware.compression.codecs import DecodingCodec
    from perf_middleware.compression.decoding import DecodingLimits
    from perf_middleware.compression.request_figures import Reason

CONTENT_ENCODING: Final = b"content-encoding"
# What they say is true of the encoded body only.  Without a length the body is as long as it is.
OF_ENCODED_BODIES: Final = frozenset({CONTENT_ENCODING, b"content-length"})
LIMITS: Final = frozenset({"decoded_bytes_max", "decoded_ratio_max"})
TITLES: Final = {400: "Bad Request", 413: "Content Too Large", 415: "Unsupported Media Type"}
DISCONNECT: Final = "http.disconnect"


class UndecodableBodyError(PerfMiddlewareError, HTTPException):
    """A request's body is corrupt or too large once decoded.

    Raised out of `receive`: the app cannot take the body for complete.  The client has its answer
    already, or its connection is cut where the app had begun one; what the app answers to this
    error goes nowhere.  An HTTPException, so that frameworks let it pass.
    """

    def __init__(self, status_code: int, detail: str) -> None:
        super().__init__(status_code, detail)


class RequestDecodingMiddleware:
    """Hands the app bodies without their Content-Encoding: gzip, deflate, br and zstd.

    A body that decodes to more than `decoded_bytes_max` bytes, or past the first megabyte to more
    than `decoded_ratio_max` times what was sent, is refused with 413, a corrupt or truncated one
    with 400, a coding that is not known here, or a third on top of two, with 415 before anything
    is read.  Stands alone with these two arguments; `codecs` are those it offers, best first;
    `follow` is told of the scope that the app sees in place of the server's.

    Raises SettingsError, which names each wrong argument.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        codecs: Sequence[DecodingCodec] | None = None,
        figures: RequestDecodingFigures | None = None,
        follow: Callable[[Scope], object] | None = None,
        **settings: Any,
    ) -> None:
        for name in settings.keys() - LIMITS:
            raise SettingsError(
                (f"RequestDecodingMiddleware({name}=…): it takes {' and '.join(sorted(LIMITS))}",)
            )
        made = section_of(CompressionSettings, settings, call="RequestDecodingMiddleware")
        self.app = app
        self.figures = RequestDecodingFigures() if figures is None else figures
        self._follow = follow
        self._limits = made.decoding_limits()
        offered = available_decoding_codecs() if codecs is None else codecs
        self._offered = {codec.name: codec for codec in offered}
        self._accepted = ", ".join(self._offered).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if scope["type"] == "http":
            headers = scope["headers"]
            if type(headers) is not list:
                headers = scope["headers"] = header_pairs(headers)
            for name, _ in headers:
                if name == CONTENT_ENCODING:
                    return await self._decoded(scope, receive, send)
        return await self.app(scope, receive, send)

    async def _decoded(self, scope: Scope, receive: Receive, send: Send) -> Any:
        headers = scope["headers"]
        figures = self.figures
        try:
            codecs = codings_of(
                (value for name, value in headers if name == CONTENT_ENCODING), self._offered
            )
        except UnknownCodingError:
            figures.count_refused("coding")
            return await self._send_unsupported(scope, send)
        if not codecs:
            return await self.app(scope, receive, send)
        for codec in codecs:
            figures.count_decoded(codec.name)
        plain = [field for field in headers if field[0] not in OF_ENCODED_BODIES]
        seen = {**scope, "headers": plain}
        if self._follow is not None:
            self._follow(seen)
        body = _DecodedBody(
            scope, seen, receive, send,
            chain=DecodingChain([codec.decoder() for codec in codecs], self._limits),
            limits=self._limits, figures=figures,
        )  # fmt: skip
        try:
            result = await telling_outside(self.app, scope)(seen, body.receive, body.send)
        except Exception as exc:
            if not body.is_answered or not comes_from(exc, body.refusal):
                raise
            return None
        finally:
            body.close()
        if body.refusal is not None and not body.is_answered:
            # The app has ended an answer that it may have made of half a body: the server is to
            # cut the connection, as for any app that fails in the middle.
            raise body.refusal
        return result

    async def _send_unsupported(self, scope: Scope, send: Send) -> None:
        accepted = self._accepted
        detail = (
            f"The body must be sent as it is, or with {CODINGS_MAX} of these content codings at "
            f"most: {accepted.decode()}."
        )
        await send_problem(
            scope, send, 415, detail, ((b"accept-encoding", accepted),), title=TITLES[415]
        )


class _DecodedBody:
    """One request: its body as the app sees it, and its answer as far as that matters here."""

    def __init__(
        self,
        scope: Scope,
        seen: Scope,
        receive: Receive,
        send: Send,
        *,
        chain: DecodingChain,
        limits: DecodingLimits,
        figures: RequestDecodingFigures,
    ) -> None:
        self.refusal: UndecodableBodyError | None = None
        self.is_answered = False
        self._scope = scope
        self._seen = seen
        self._receive = receive
        self._send = send
        self._chain: DecodingChain | None = chain
        self._limits = limits
        self._figures = figures
        self._has_all = False
        self._is_started = False

    async def receive(self) -> Message:
        """The next piece of the decoded body; behind its end, what the server tells."""
        while (chain := self._chain) is not None:
            if chain.is_hungry:
                message = await self._receive()
                if message["type"] != "http.request":
                    self.close()
                    return message
                chain.give(message.get("body", b""))
                self._has_all = not message.get("more_body", False)
            else:
                await anyio.lowlevel.checkpoint()  # the last piece was served without any wait
            if self._chain is None:
                continue  # a second reader (Starlette's streams watch for a disconnect) was quicker
            try:
                decoded = chain.decode()
                is_last = self._has_all and chain.is_hungry
                if is_last:
                    chain.end()
            except CorruptBodyError as error:
                raise await self._refuse(400, "corrupt", _corrupt(error)) from None
            except DecodedTooLargeError as error:
                raise await self._refuse(413, error.bound, self._too_large(error)) from None
            if is_last:
                self.close()
                return {"type": "http.request", "body": decoded, "more_body": False}
            if decoded:
                return {"type": "http.request", "body": decoded, "more_body": True}
        if self.refusal is not None:
            return {"type": DISCONNECT}
        return await self._receive()

    async def send(self, message: Message) -> None:
        """Pass on what the app answers, unless its request was refused."""
        if self.refusal is None:
            self._is_started = self._is_started or message["type"] == "http.response.start"
            await self._send(message)

    def close(self) -> None:
        """Let go of the decoders, wherever this object may still be held."""
        chain, self._chain = self._chain, None
        if chain is not None:
            self._figures.encoded_bytes += chain.encoded_bytes
            self._figures.decoded_bytes += chain.decoded_bytes

    async def _refuse(self, status: int, reason: Reason, detail: str) -> UndecodableBodyError:
        """Answer with `status` where nothing was answered yet; returns what is to be raised."""
        self.close()
        self._figures.count_refused(reason)
        self.refusal = refusal = UndecodableBodyError(status, detail)
        if not self._is_started:
            self.is_answered = True
            tell_outside(self._scope, self._seen)
            await send_problem(self._scope, self._send, status, detail, title=TITLES[status])
        return refusal

    def _too_large(self, error: DecodedTooLargeError) -> str:
        if error.bound == "bytes":
            return f"The body has more than {self._limits.decoded_bytes_max} bytes once decoded."
        return f"The body becomes more than {self._limits.ratio_max} times as long once decoded."


def _corrupt(error: CorruptBodyError) -> str:
    return f"The body is not what its Content-Encoding says: {error}."
