"""Which form of the metrics page a client wants: Accept and Accept-Encoding by their qvalues.

What is malformed says nothing: a bad element is passed over, a page in plain text is never wrong.
What is not acceptable at all is answered in plain text too, as a server may (RFC 9110 §12.5.1).

    Prometheus 2.x  application/openmetrics-text;version=1.0.0,…;q=0.5,*/*;q=0.1   openmetrics
    Prometheus 3.x  …openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,…   openmetrics
    curl            */*                                                            text
    a browser       text/html,application/xhtml+xml,…,*/*;q=0.8                    text

Source: RFC 9110 §5.6.6 (parameters), §12.4.2 (qvalues), §12.5.1, §12.5.3.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

Format: TypeAlias = Literal["text", "openmetrics", "json"]

HEADER_BYTES_MAX = 2_048  # Prometheus 3 sends about 350; quotes left open cost quadratic time
ELEMENTS_MAX = 64  # browsers and scrapers send about ten

_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_PARAMETER = re.compile(r';[ \t]*([!#$%&\'*+.^_`|~\w-]+)=("(?:[^"\\]|\\.)*"|[^\s;,"]+)', re.ASCII)
_QVALUE = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")

# Media type, and the place among equals: what was named outright, and what a wildcard leaves open.
_OFFERS: tuple[tuple[Format, str, int, int], ...] = (
    ("openmetrics", "application/openmetrics-text", 2, 0),
    ("text", "text/plain", 1, 2),
    ("json", "application/json", 0, 1),
)
_OPENMETRICS_VERSIONS = (None, "1.0.0", "0.0.1")

_Element: TypeAlias = tuple[str, dict[str, str], float]


def negotiate(accept: bytes | None) -> Format:
    """The form with the highest qvalue; among equals the one named outright, else plain text."""
    ranges = _elements(accept)
    best: Format = "text"
    best_rank: tuple[float, int, int] = (0.0, 0, 0)
    for format_, media_type, named_place, open_place in _OFFERS:
        precision, quality = _best_match(ranges, media_type)
        rank = (quality, precision, named_place if precision == _EXACT else open_place)
        if quality > 0 and rank > best_rank:
            best, best_rank = format_, rank
    return best


def accepts_gzip(accept_encoding: bytes | None) -> bool:
    """Whether gzip is acceptable and not less wanted than the plain page.

    A request without the header would accept any coding; what it understands is not known, so it
    gets none.
    """
    qualities: dict[str, float] = {}
    for coding, _, quality in _elements(accept_encoding):
        qualities.setdefault("gzip" if coding == "x-gzip" else coding, quality)
    gzip = qualities.get("gzip", qualities.get("*", 0.0))
    return gzip > 0 and gzip >= qualities.get("identity", 0.0)


_EXACT = 2


def _best_match(ranges: list[_Element], media_type: str) -> tuple[int, float]:
    """How precisely the closest range names `media_type` (2 exactly, 0 by `*/*`), its qvalue."""
    precision, quality = -1, 0.0
    major = media_type[: media_type.index("/")]
    for name, parameters, q in ranges:
        if name == media_type:
            found = _EXACT
            versions = _OPENMETRICS_VERSIONS if "openmetrics" in name else None
            if versions is not None and parameters.get("version") not in versions:
                continue
        elif name == f"{major}/*":
            found = 1
        elif name == "*/*":
            found = 0
        else:
            continue
        # Prometheus names one type in several versions, each with its qvalue: the best counts.
        # An exclusion (q=0) without a version is as precise, and weaker than an explicit wish.
        if found > precision or (found == precision and q > quality):
            precision, quality = found, q
    return precision, quality


def _elements(header: bytes | None) -> list[_Element]:
    """The well-formed elements of a list header: lower-case name, parameters, qvalue."""
    if header is None or len(header) > HEADER_BYTES_MAX:
        return []
    elements: list[_Element] = []
    for match in _ELEMENT.finditer(header.decode("latin-1")):
        if len(elements) == ELEMENTS_MAX:
            break
        name, semicolon, rest = match.group().partition(";")
        parameters = {
            key.lower(): _unquote(value) for key, value in _PARAMETER.findall(semicolon + rest)
        }
        weight = parameters.pop("q", "1")
        if _QVALUE.fullmatch(weight) and (name := name.strip(" \t").lower()):
            elements.append((name, parameters, float(weight)))
    return elements


def _unquote(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
