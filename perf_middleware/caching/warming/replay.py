"""From a stored response back to the request that asks for it, and that request as text.

Only what anybody may ask for: what was made for one client, by a function of the app's, behind a
middleware that rewrote the path, or for a URL that is a secret, is not asked for again, nor kept.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from perf_middleware.caching.fields import CREDENTIALS
from perf_middleware.caching.selection import ABSENT
from perf_middleware.caching.syntax.lists import is_token
from perf_middleware.caching.variants import names_in
from perf_middleware.caching.warming.plan import OWN, Ask

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from perf_middleware.caching.stored import StoredResponse
    from perf_middleware.caching.warming.plan import Fields

ASK_BYTES_MAX: Final = 4_096  # path, query and fields: clients choose them
NOBODYS: Final = CREDENTIALS | OWN
# Those of access_token, accessToken and X-Amz-Signature: access, token, X, Amz, Signature.
_WORDS: Final = re.compile(rb"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
SECRETS: Final = frozenset(
    {
        b"accesskey", b"accesstoken", b"apikey", b"auth", b"authorization", b"credential",
        b"credentials", b"jwt", b"otp", b"passwd", b"password", b"pwd", b"secret", b"session",
        b"sessionid", b"sid", b"sig", b"signature", b"ticket", b"token",
    }
)  # fmt: skip
"""Words in the name of a query's parameter: who has the URL is let in by it."""


def replay_of(
    stored: StoredResponse, *, roots: Iterable[bytes] = (), credentials: Container[bytes] = ()
) -> Ask | None:
    """The request that asks for `stored`, None where it cannot be known, or is one client's.

    `credentials` are the fields that say who asks, beside CREDENTIALS.
    """
    rule = stored.rule
    if stored.shares_authorization:
        return None
    if rule is not None and (rule.key is not None or rule.private_by):
        return None
    origin, _, rest = stored.primary.partition(b"\n")
    rest, has_suffix, suffix = rest.partition(b"\0")
    path, _, query = rest.partition(b"?")
    if b"\n" in rest:
        return None  # it was rewritten on its way
    if has_suffix:
        length, _, query = suffix.partition(b":")
        if length != b"%d" % len(query) or (query and b"=" not in query):
            return None  # a digest
    fields = _fields_of(stored)
    if fields is None or any(name in credentials for name, _ in fields):
        return None
    if query and has_secret(query):
        return None
    scheme, _, host = origin.partition(b"://")
    root = next((root for root in roots if path == root or path.startswith(root + b"/")), b"")
    ask = Ask(scheme.decode("latin-1"), host, path, query, fields, root.decode("latin-1"))
    return ask if _is_sendable(ask) else None


def has_secret(query: bytes) -> bool:
    """Whether a parameter is named as those that let somebody in: `?access_token=…`."""
    for parameter in query.split(b"&"):
        name = unquote_to_bytes(parameter.partition(b"=")[0])
        words = _WORDS.findall(name)
        joined = b"".join(words[-2:]).lower()
        if name.lower() == b"key" or joined in SECRETS:
            return True
        if any(word.lower() in SECRETS for word in words):
            return True
    return False


def _fields_of(stored: StoredResponse) -> Fields | None:
    """The request fields in its key (`selection.secondary_key`)."""
    names = names_in(stored.key, stored.primary)
    if not names:
        return ()
    rest = stored.key[len(stored.primary) + 1 :].partition(b"\r")[2]
    fields = []
    for name in names:
        if rest.startswith(ABSENT):
            rest = rest[2:]
            continue
        length, _, rest = rest.partition(b"+")
        if not length.isdigit():
            return None
        fields.append((name, rest[: int(length)]))
        rest = rest[int(length) + 1 :]
    return tuple(fields)


def _is_sendable(ask: Ask) -> bool:
    """Whether a server would let it in, and nobody's name is in it."""
    size = len(ask.host) + len(ask.path) + len(ask.query)
    url = ask.path + ask.query
    if (
        ask.scheme not in {"http", "https"}
        or not ask.host
        or not ask.path.startswith(b"/")
        or not url.isascii()
        or any(byte <= 0x20 or byte == 0x7F for byte in ask.host + url)
    ):
        return False
    for name, value in ask.fields:
        size += len(name) + len(value)
        if not is_token(name) or name != name.lower() or name in NOBODYS:
            return False
        if any(byte in value for byte in b"\r\n\0"):
            return False
    return size <= ASK_BYTES_MAX


def as_text(ask: Ask) -> str:
    """One line; `of_text` reads it."""
    fields = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in ask.fields]
    parts = [part.decode("latin-1") for part in (ask.host, ask.path, ask.query)]
    return json.dumps([ask.scheme, *parts, fields, ask.root_path], separators=(",", ":"))


def of_text(text: str | bytes) -> Ask | None:
    """The request in a line of `as_text`; None for anything else, whoever has written it."""
    try:
        read: Any = json.loads(text)
        scheme, host, path, query, pairs, root = read
        fields = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs)
        ask = Ask(
            scheme, host.encode("latin-1"), path.encode("latin-1"), query.encode("latin-1"),
            fields, root,
        )  # fmt: skip
        root.encode("latin-1")
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    return ask if isinstance(scheme, str) and _is_sendable(ask) else None
