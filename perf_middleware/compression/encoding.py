"""May this answer be encoded, and what does its head become?

    judge     status and headers                      -> ENCODE, EVENTS, or why not
    coded     headers of an answer that is encoded    -> without what speaks of other bytes
    varied    headers of one that could have been     -> with Vary: Accept-Encoding

An answer has Vary where its type and its size are worth encoding and nothing in its head forbids
it, whatever the client accepts: a cache between must know that another client gets other bytes.
What speaks of the very bytes (digests, signatures) is a promise of the app: such an answer is left
alone, because removing the promise would break what the app's clients check.
Source: RFC 9110 §8.4, §12.5.5 (Vary), §14.3; RFC 9530 (digests); RFC 9421 (signatures).
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from perf_middleware.compression.content_types import CompressibleTypes, is_event_stream
from perf_middleware.compression.etags import coded_etag, etag_not_modified

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from perf_middleware.asgi import Message

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
Verdict: TypeAlias = Literal[
    "encode", "events", "small", "type", "status", "coded", "range", "no-transform", "digest",
    "malformed",
]  # fmt: skip

ENCODE: Final = "encode"
EVENTS: Final = "events"
ENCODED: Final = (ENCODE, EVENTS)
VARY: Final = (b"vary", b"Accept-Encoding")
NO_ANSWERS: Final = frozenset({204, 205, 206, 304})
"""Without a body, or a part of one: 1xx and these."""
Said: TypeAlias = bytes | tuple[bytes | None, bytes] | None
"""A media type; with the value of Cache-Control, where there is one."""
Head: TypeAlias = tuple[int, int, int, dict[Said, Verdict]]
"""Where Content-Length, Content-Type and Cache-Control stand, and what is known of their values."""
PlainHead: TypeAlias = tuple[int, int, dict[Said, Verdict]]
"""Where Content-Length and Content-Type stand: a head without Cache-Control and without Vary."""
BLOCKING: Final[Mapping[bytes, Verdict]] = MappingProxyType(
    {
        b"content-encoding": "coded",
        b"transfer-encoding": "coded",
        b"content-range": "range",  # also of a 416
        b"content-digest": "digest",
        b"content-md5": "digest",
        b"digest": "digest",
        b"repr-digest": "digest",
        b"signature-input": "digest",
    }
)
REMEMBERED_MAX: Final = 1_000  # sequences of names, and verdicts on values beside them
BYTES_MAX: Final = 1_000  # of the names, and of the values
ABSENT: Final = -1
_NAME: Final = itemgetter(0)
DIGITS_MAX: Final = 18
SHORT_MAX: Final = 1_000  # lengths that are known to be too small by a look-up, not by reading them
OF_VALUE: Final = frozenset({b"content-length", b"content-type", b"cache-control"})
"""Of these not the name alone decides."""
_OF_OTHER_BYTES: Final = frozenset({b"content-length", b"accept-ranges", b"content-encoding"})


class Judge:
    """Says of each answer whether it is worth encoding.

    An app has few kinds of heads: what their names say, and the values that count beside them, is
    remembered, so that most answers cost two look-ups.
    """

    def __init__(
        self, *, minimum_bytes: int, types: CompressibleTypes, event_streams: bool = True
    ) -> None:
        self.minimum_bytes = minimum_bytes
        self._minimum_digits = len(str(minimum_bytes))
        self._short = frozenset([b"%d" % size for size in range(min(minimum_bytes, SHORT_MAX))])
        self._includes = types.includes
        self._event_streams = event_streams
        self._heads: dict[tuple[bytes, ...], Head] = {}
        self._plain: dict[tuple[bytes, ...], PlainHead] = {}
        self._remembered = 0  # of heads, and the verdicts in them

    def judge_plain(self, status: object, headers: Headers) -> Verdict | None:
        """What `judge` says of the most frequent answers, in half of its time.

        None for any other: only a 200 with a length and a type is one, without Cache-Control and
        without Vary, whose like was judged before.
        """
        try:
            length_at, type_at, verdicts = self._plain[(*map(_NAME, headers),)]
            if status != 200:
                return None
            length = headers[length_at][1]
            if self._minimum_digits < len(length) <= DIGITS_MAX and length.isdigit():
                return verdicts[headers[type_at][1]]
        except (AttributeError, LookupError, TypeError):
            return None
        return None

    def judge(self, status: object, headers: Headers) -> Verdict:
        """ENCODE or EVENTS, or why this answer is sent as it is.

        One without Content-Length counts as large enough: whoever sees its body may know better.
        So does one with zeros in front.
        """
        try:
            names = (*map(_NAME, headers),)
            try:
                head = self._heads[names]
            except KeyError:
                head = self._learn(names)
            length_at, type_at, control_at, verdicts = head
            # The most frequent reason, read first: what is behind it costs more.
            if length_at >= 0:
                length = headers[length_at][1]
                if length in self._short:
                    return "small"
                if not length.isdigit() or len(length) > DIGITS_MAX:
                    return "malformed"
                # Reading a number costs more than seeing that it is a long one.
                if len(length) <= self._minimum_digits and int(length) < self.minimum_bytes:
                    return "small"
            if not isinstance(status, int) or status < 200 or status in NO_ANSWERS:
                return "status"
            content_type = headers[type_at][1] if type_at >= 0 else None
            said: Said = content_type
            if control_at >= 0:
                said = content_type, headers[control_at][1]
            return verdicts.get(said) or self._considered(headers, names, head, said)
        except (AttributeError, IndexError, TypeError, ValueError):
            return "malformed"  # no pairs of bytes: the server will say so

    def _considered(
        self, headers: Headers, names: tuple[bytes, ...], head: Head, said: Said
    ) -> Verdict:
        fields = _joined(headers)
        length = fields.get(b"content-length")
        if length is not None and int(length) < self.minimum_bytes:
            return "small"  # under a name in capitals
        content_type = fields.get(b"content-type")
        control = fields.get(b"cache-control", b"")
        verdict = self._of_type(content_type)
        if verdict != "type":
            blocking = [name for name in fields if name in BLOCKING]
            if blocking:
                verdict = BLOCKING[blocking[0]]
            elif b"no-transform" in _names(control):
                verdict = "no-transform"
        if head is self._heads.get(names) and len(content_type or b"") + len(control) <= BYTES_MAX:
            head[-1][said] = verdict
            self._count()
        return verdict

    def _learn(self, names: tuple[bytes, ...]) -> Head:
        head = head_of(names)
        # As they were sent: with capitals, or a value that counts twice, it is looked at each time.
        is_plain = all(
            name == name.lower() and (name not in OF_VALUE or names.count(name) == 1)
            for name in names
        )
        if is_plain and sum(map(len, names)) <= BYTES_MAX:
            self._heads[names] = head
            length_at, type_at, control_at, verdicts = head
            if min(length_at, type_at) >= 0 > control_at and b"vary" not in names:
                self._plain[names] = length_at, type_at, verdicts
            self._count()
        return head

    def _count(self) -> None:
        """One more is remembered; where they are too many now, all are forgotten."""
        self._remembered += 1
        if self._remembered >= REMEMBERED_MAX:
            self._heads.clear()
            self._plain.clear()
            self._remembered = 0

    def _of_type(self, content_type: bytes | None) -> Verdict:
        if content_type is None or not self._includes(content_type):
            return "type"
        if is_event_stream(content_type):
            return EVENTS if self._event_streams else "type"
        return ENCODE


def said_of_body(headers: Headers) -> tuple[int | None, bool]:
    """The length that a head tells, and whether its body may be kept for other answers.

    What `no-store` stands on nobody keeps (RFC 9111 §5.2.2.5).
    """
    length, may_keep = None, True
    for name, value in headers:
        size = len(name)  # the quicker question
        if size == 14 and length is None and name.lower() == b"content-length":
            length = int(value)
        elif size == 13 and name.lower() == b"cache-control" and b"no-store" in _names(value):
            may_keep = False
    return length, may_keep


def readable(message: Message) -> tuple[Message, Headers]:
    """A start message and its headers, which may be an iterator that can be read once."""
    headers = message.get("headers", ())
    if type(headers) is list or type(headers) is tuple:
        return message, headers
    headers = list(headers)
    return {**message, "headers": headers}, headers


def head_of(names: tuple[bytes, ...]) -> Head:
    """Of a head with these names nothing is known as yet but their places."""

    def place_of(name: bytes) -> int:
        return names.index(name) if name in names else ABSENT

    return place_of(b"content-length"), place_of(b"content-type"), place_of(b"cache-control"), {}


def coded(
    headers: Headers,
    content_encoding: tuple[bytes, bytes],
    *,
    suffix: bytes,
    body_bytes: int | None,
) -> list[tuple[bytes, bytes]]:
    """The head of the encoded answer; `body_bytes` None where its length is not known before.

    `suffix` is what a strong ETag ends with from now on; empty: it stays, as one of an unsafe
    method's answer speaks of the resource and not of this body (RFC 9110 §8.8.3, §9.3.4).
    Accept-Ranges goes: ranges of the coded bytes are not served.
    """
    kept = [pair for pair in headers if pair[0].lower() not in _OF_OTHER_BYTES]
    if suffix:
        for at, (name, value) in enumerate(kept):
            if name.lower() == b"etag":
                kept[at] = (name, coded_etag(value, suffix))
    kept.append(content_encoding)
    if body_bytes is not None:
        kept.append((b"content-length", b"%d" % body_bytes))
    return varied(kept)


def not_modified(
    headers: Headers, asked: bytes, suffixes: Sequence[bytes]
) -> list[tuple[bytes, bytes]]:
    """The head of a 304 with the tag that the client `asked` with, and so of coded answers."""
    return varied(
        [
            (name, etag_not_modified(value, asked, suffixes))
            if name.lower() == b"etag"
            else (name, value)
            for name, value in headers
        ]
    )


def varied(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers with Accept-Encoding in Vary: once, and not where `*` says it already."""
    for name, _ in headers:
        if len(name) == 4 and name.lower() == b"vary":  # the length is the quicker question
            return _merged(headers)
    return [*headers, VARY]


def _merged(headers: Headers) -> list[tuple[bytes, bytes]]:
    lines = [at for at, (name, _) in enumerate(headers) if name.lower() == b"vary"]
    if any(not _names(headers[at][1]).isdisjoint((b"accept-encoding", b"*")) for at in lines):
        return list(headers)
    name, value = headers[lines[-1]]
    merged = b"%b, Accept-Encoding" % value if value.strip(b" \t,") else VARY[1]
    return [*headers[: lines[-1]], (name, merged), *headers[lines[-1] + 1 :]]


def _joined(headers: Headers) -> dict[bytes, bytes]:
    """The fields by their names in lower case, several lines of one as one list (§5.3).

    Raises ValueError for two different lengths.
    """
    fields: dict[bytes, bytes] = {}
    for key, value in headers:
        name = key.lower()
        if name not in fields:
            fields[name] = value
        elif name == b"content-length":
            if fields[name] != value:
                raise ValueError("two lengths")
        elif name != b"content-type":  # of several the first counts
            fields[name] = b"%b,%b" % (fields[name], value)
    return fields


def _names(value: bytes) -> frozenset[bytes]:
    """The members of a list of names, in lower case."""
    return frozenset(_stripped(value.lower().split(b",")))


def _stripped(members: Iterable[bytes]) -> Iterable[bytes]:
    return (member.strip(b" \t") for member in members)
