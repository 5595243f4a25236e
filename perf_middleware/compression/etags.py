"""Entity tags of coded answers: `"abc"` is `W/"abc~pm-gzip"` while its answer is gzip.

    app:  ETag: "abc"                 -> client: ETag: W/"abc~pm-gzip"     Content-Encoding: gzip
    app:  If-None-Match: "abc"       <-  client: If-None-Match: W/"abc~pm-gzip"
    app:  304, ETag: "abc"            -> client: 304, ETag: W/"abc~pm-gzip"

A strong tag stands for bytes, and each coding has others: so has the same coding at another level,
with other flushes or another padding, which makes the tag of a coded answer a weak one.  A weak tag
stands for what the bytes mean and stays.  Read by its end, up to the closing quote: no other quote
can stand in a tag, so that looking for the suffix with its quote finds whole tags, nothing else.
Source: RFC 9110 §8.8.1, §8.8.3, §8.8.3.3.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MARK: Final = b"~pm-"
"""What apps do not end their own tags with; `-gzip` alone is what some servers write."""
_WEAK: Final = b"W/"


def suffix_of(coding: str) -> bytes:
    """What a tag of `coding` ends with, its closing quote with it."""
    return MARK + coding.encode() + b'"'


def coded_etag(etag: bytes, suffix: bytes) -> bytes:
    """The tag of the coded answer; a weak one, and what is no tag, as it is."""
    if len(etag) >= 2 and etag[:1] == b'"' and etag[-1:] == b'"':
        return _WEAK + etag[:-1] + suffix
    return etag


def without_coding(value: bytes, suffixes: Iterable[bytes]) -> bytes:
    """A line of If-None-Match or If-Match as the app knows its tags: of these codings no mark.

    Nor what makes them weak, which was ours: whoever sends it may have lost that too.
    """
    if MARK in value:
        for suffix in suffixes:
            value = re.sub(b'(?:W/)?("[^"]*)' + re.escape(suffix), rb'\1"', value)
    return value


def etag_not_modified(etag: bytes, asked: bytes, suffixes: Iterable[bytes]) -> bytes:
    """The tag of a 304: that of the first coding whose tag the client asked with, else the app's.

    It tells the client which of what it has is still good (RFC 9110 §15.4.5).
    """
    for suffix in suffixes:
        coded = coded_etag(etag, suffix)
        if coded != etag and coded.removeprefix(_WEAK) in asked:
            return coded
    return etag
