"""Compression as a layer: answers leave in the coding that their client accepts best.

A request is looked at once: its Accept-Encoding is a key into what was negotiated before.  Where it
accepts nothing of ours, the answer is only looked at for its Vary.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from perf_middleware.asgi import Around, app_path, header_pairs, telling_outside
from perf_middleware.coded_forms import WANTED
from perf_middleware.compression.encoding import ENCODE, ENCODED, VARY, readable, varied
from perf_middleware.compression.etags import without_coding
from perf_middleware.compression.middleware.coded import HELD, WAITING, CodedAnswer
from perf_middleware.compression.negotiation import field_value
from perf_middleware.compression.runtime import Compression
from perf_middleware.compression.settings import CompressionSettings
from perf_middleware.errors import SettingsError
from perf_middleware.field_names import NAME, NameSequences
from perf_middleware.standing_alone import require_whole, section_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from perf_middleware.asgi import ASGIApp, Message, Receive, Scope, Send
    from perf_middleware.coding_choice import Choice
    from perf_middleware.compression.runtime import Coding

OF_INSTALL: Final = frozenset({"enabled"})  # whether a layer stands
OF_REQUESTS: Final = frozenset({"decode_requests", "decoded_bytes_max", "decoded_ratio_max"})
READING: Final = frozenset({"GET", "HEAD"})
CONDITIONS: Final = frozenset({b"if-none-match", b"if-match"})
ABSENT: Final = -1
SEVERAL: Final = -2

Places: TypeAlias = tuple[int, int, bool]
"""Of Accept-Encoding; of Sec-Fetch-Site beside a Cookie; whether there are conditions."""


class CompressionLayer(Around):
    """The codings of `compression` around `app`, as install stands them in the stack.

    A request that accepts no coding of ours runs in no coroutine of this layer.
    """

    def __init__(self, app: ASGIApp, compression: Compression) -> None:
        self.app = app
        self.compression = compression
        self._known = compression.known
        self._has_rules = compression.paths.has_any
        self._places = NameSequences(places_of)
        self._known_places = self._places.known
        self._wanted_bytes = compression.judge.minimum_bytes if compression.keeps_forms else None
        self._judge_plain = compression.judge.judge_plain
        self._skipped = compression.figures.skipped

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[Any]:
        below = self.below
        if scope["type"] != "http":
            return below(scope, receive, send)
        headers = scope["headers"]
        if type(headers) is not list:
            headers = scope["headers"] = header_pairs(headers)
        try:
            accepts_at, site_at, is_conditional = self._known_places[(*map(NAME, headers),)]
        except KeyError:
            accepts_at, site_at, is_conditional = self._places.learn(headers)
        if accepts_at >= 0:
            value = headers[accepts_at][1]
        elif accepts_at == ABSENT:
            value = None
        else:
            value = field_value([line for name, line in headers if name == b"accept-encoding"])
        try:
            codings = self._known[value]
        except KeyError:
            codings = self.compression.acceptable(value)
        # Before routing: mounts move what is below root_path.
        choice = self.compression.paths.choice_for(app_path(scope)) if self._has_rules else None
        asked = b""
        if is_conditional:
            seen, asked = self._as_the_app_knows(scope, dict(headers), codings)
            if seen is not scope:
                below, scope = telling_outside(below, scope), seen
        if not codings:
            return below(scope, receive, self._sending_plain(scope, send, choice))
        if self._wanted_bytes is not None:
            scope[WANTED] = self._wanted_bytes
        answer = CodedAnswer()
        answer.compression, answer.codings = self.compression, codings
        answer.scope, answer.passed_on = scope, send
        answer.stage = WAITING
        if asked:
            answer.asked = asked
        if choice is not None:
            answer.choice = choice
        if site_at >= 0 and headers[site_at][1] == b"cross-site":
            # Fetch Metadata (W3C): another site made the browser send it; ?1 is a user's click.
            was_clicked = (b"sec-fetch-user", b"?1") in headers
            if not (was_clicked or self.compression.encodes_cross_site):
                answer.as_identity = "cross-site"
        return _coded(below, answer, scope, receive)

    def _sending_plain(self, scope: Scope, send: Send, choice: Choice | None) -> Send:
        """For a client that accepts no coding of ours: another may, and caches must know."""

        def sending(message: Message) -> Awaitable[None]:
            if message["type"] != "http.response.start":
                return send(message)
            headers = message.get("headers")
            if (
                type(headers) is list
                and self._judge_plain(message.get("status"), headers) == ENCODE
                and self.compression.choice_for(scope, message, choice).encode
                and "trailers" not in message
            ):
                self._skipped["not-accepted"] += 1
                message = {**message}
                message["headers"] = [*headers, VARY]
                return send(message)
            return send(self._considered(scope, message, choice))

        return sending

    def _considered(self, scope: Scope, message: Message, choice: Choice | None) -> Message:
        """Any head of an answer to such a client."""
        message, headers = readable(message)
        why: str = self.compression.judge.judge(message.get("status"), headers)
        if why in ENCODED:
            if message.get("trailers"):
                why = "trailers"
            elif not self.compression.choice_for(scope, message, choice).encode:
                why = "route"
            else:
                why = "not-accepted"
                message = {**message, "headers": varied(headers)}
        self._skipped[why] += 1
        return message

    def _as_the_app_knows(
        self, scope: Scope, fields: Mapping[bytes, bytes], codings: tuple[Coding, ...]
    ) -> tuple[Scope, bytes]:
        """The scope with tags of codings as the app's own, and the If-None-Match that it had.

        A reader's tag of a coding that it does not accept stays foreign: a 304 would make a cache
        give what its client cannot decode.  What changes the resource may name any: all stand for
        the same state.  If-Match beside Range stays as well: the range would be of other bytes.
        A tag in If-Range always does, so that the app answers with the whole.
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


async def _coded(app: ASGIApp, answer: CodedAnswer, scope: Scope, receive: Receive) -> Any:
    try:
        returned = await app(scope, receive, answer.send)
    except Exception:
        if answer.stage in HELD:
            with suppress(Exception):  # the app's own error is the one to tell
                await answer.release_head()
        raise
    else:
        if answer.stage in HELD:
            await answer.release_head()
        return returned
    finally:
        if answer.encoder is not None:
            answer.close()


class CompressionMiddleware(CompressionLayer):
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
        else:
            require_whole(compression, Compression, settings, call="CompressionMiddleware")
        super().__init__(app, compression)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        # A coroutine function: servers tell ASGI 3 from ASGI 2 by that.
        return await CompressionLayer.__call__(self, scope, receive, send)


def places_of(names: Sequence[bytes]) -> Places:
    """Where in a request with fields of these names stands what counts."""
    accepts_at = names.index(b"accept-encoding") if b"accept-encoding" in names else ABSENT
    if names.count(b"accept-encoding") > 1:
        accepts_at = SEVERAL
    has_site = b"cookie" in names and b"sec-fetch-site" in names
    site_at = names.index(b"sec-fetch-site") if has_site else ABSENT
    return accepts_at, site_at, not CONDITIONS.isdisjoint(names)
