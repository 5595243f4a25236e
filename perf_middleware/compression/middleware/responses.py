"""Compression as a layer: answers leave in the coding that their client accepts best.

A request is looked at once: its Accept-Encoding is a key into what was negotiated before.  Where it
accepts nothing of ours, the answer is only looked at for its Vary.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.asgi import app_path
from perf_middleware.compression.encoding import ENCODED, varied
from perf_middleware.compression.etags import without_coding
from perf_middleware.compression.middleware.coded import HOLDING, CodedAnswer, readable
from perf_middleware.compression.negotiation import field_value
from perf_middleware.compression.settings import CompressionSettings
from perf_middleware.errors import SettingsError
from perf_middleware.standing_alone import section_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send
    from perf_middleware.compression.choices import Choice
    from perf_middleware.compression.runtime import Coding, Compression

OF_INSTALL: Final = frozenset({"enabled"})  # whether a layer stands
OF_REQUESTS: Final = frozenset({"decode_requests", "decoded_bytes_max", "decoded_ratio_max"})
READING: Final = frozenset({"GET", "HEAD"})


class CompressionMiddleware:
    """Encodes answers in zstd, br or gzip, as each client accepts (RFC 9110 §12.5.3).

    Stands alone: `settings` are the fields of CompressionSettings for answers
    (`minimum_bytes=1_000`, `codings=("br", "gzip")`).  `compression`, given instead of them, is one
    that exists.

    Raises SettingsError, which names each wrong argument, and TypeError for both.
    """

    def __init__(
        self, app: ASGIApp, compression: Compression | None = None, **settings: Any
    ) -> None:
        if compression is None:
            for name in OF_INSTALL & settings.keys():
                raise SettingsError((f"CompressionMiddleware({name}=…): only install can do that",))
            for name in sorted(OF_REQUESTS & settings.keys()):
                raise SettingsError(
                    (f"CompressionMiddleware({name}=…): RequestDecodingMiddleware does that",)
                )
            made = section_of(CompressionSettings, settings, call="CompressionMiddleware")
            compression = made.make_compression()
        elif settings:
            raise TypeError(f"a compression has its settings: it takes no {', '.join(settings)}")
        self.app = app
        self.compression = compression
        self._known = compression.known
        self._has_rules = compression.paths.has_any

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = scope["headers"]
        if type(headers) is not list:
            headers = scope["headers"] = list(headers)  # an iterator can be read once
        fields = dict(headers)
        value = fields.get(b"accept-encoding")
        if len(fields) != len(headers) and value is not None:
            value = field_value([line for name, line in headers if name == b"accept-encoding"])
        compression = self.compression
        codings = self._known.get(value)
        if codings is None:
            codings = compression.acceptable(value)
        # Before routing: mounts move what is below root_path.
        choice = compression.paths.choice_for(app_path(scope)) if self._has_rules else None
        asked = b""
        if b"if-none-match" in fields or b"if-match" in fields:
            scope, asked = self._as_the_app_knows(scope, fields, codings)
        if not codings:
            plain = PlainAnswer(compression, scope, send, choice)
            return await self.app(scope, receive, plain.send)
        answer = CodedAnswer(compression, codings, scope, send)
        if asked:
            answer.asked = asked
        if choice is not None:
            answer.choice = choice
        if b"cookie" in fields and fields.get(b"sec-fetch-site") == b"cross-site":
            # Fetch Metadata (W3C): another site made the browser send it; ?1 is a user's click.
            was_clicked = fields.get(b"sec-fetch-user") == b"?1"
            if not (was_clicked or compression.encodes_cross_site):
                answer.as_identity = "cross-site"
        try:
            returned = await self.app(scope, receive, answer.send)
        except Exception:
            if answer.stage == HOLDING:
                with suppress(Exception):  # the app's own error is the one to tell
                    await answer.release_head()
            raise
        else:
            if answer.stage == HOLDING:
                await answer.release_head()
            return returned
        finally:
            if answer.encoder is not None:
                answer.close()

    def _as_the_app_knows(
        self, scope: Scope, fields: Mapping[bytes, bytes], codings: tuple[Coding, ...]
    ) -> tuple[Scope, bytes]:
        """The scope with tags of codings as the app's own, and the If-None-Match that it had.

        A reader's tag of a coding that it does not accept stays foreign: a 304 would make a cache
        give what its client cannot decode.  What changes the resource may name any: all stand for
        the same state.  If-Match beside Range stays as well: the range would be of other bytes.
        If-Range always does, so that the app answers with the whole.
        """
        reads = scope["method"] in READING
        suffixes = [coding.suffix for coding in codings] if reads else self.compression.suffixes
        names = {b"if-none-match"}
        if not (reads and b"range" in fields):
            names.add(b"if-match")
        headers = [
            (name, without_coding(value, suffixes)) if name in names else (name, value)
            for name, value in scope["headers"]
        ]
        if headers == scope["headers"]:
            return scope, b""
        asked = b",".join(value for name, value in scope["headers"] if name == b"if-none-match")
        scope = {**scope, "headers": headers}
        if self.compression.follow is not None:
            self.compression.follow(scope)
        return scope, asked


class PlainAnswer:
    """An answer to a client that accepts no coding of ours: another may, and caches must know."""

    __slots__ = ("_choice", "_compression", "_scope", "_send")

    def __init__(
        self, compression: Compression, scope: Scope, send: Send, choice: Choice | None
    ) -> None:
        self._compression = compression
        self._scope = scope
        self._send = send
        self._choice = choice

    def send(self, message: Message) -> Awaitable[None]:
        if message["type"] != "http.response.start":
            return self._send(message)
        headers = message.get("headers")
        if type(headers) is not list:
            message, headers = readable(message)
        compression = self._compression
        why: str = compression.judge.judge(message.get("status"), headers)
        if why in ENCODED:
            if message.get("trailers"):
                why = "trailers"
            elif not compression.choice_for(self._scope, self._choice).encode:
                why = "route"
            else:
                why = "not-accepted"
                message = {**message, "headers": varied(headers)}
        compression.figures.skipped[why] += 1
        return self._send(message)
