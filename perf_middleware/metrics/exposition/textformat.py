"""The lexical rules that the Prometheus text format 0.0.4 and OpenMetrics 1.0 share.

Sources: Prometheus exposition formats, "Text format details"; OpenMetrics 1.0 §"Numbers",
§"Considerations: Canonical Numbers"; prometheus_client `floatToGoString`.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

TextFormat: TypeAlias = Literal["text", "openmetrics"]

EXEMPLAR_RUNES_MAX = 128  # OpenMetrics 1.0 §"Exemplars": names and values of its labels together
_EXACT_BITS_MAX = 1023  # a longer integer is beyond every double a scraper could read it into


def number_text(value: float | int) -> str:  # noqa: PYI041 - the type checker tells them apart
    """`value` as a sample value: integers digit by digit, floats so that they read back equal.

    What no double can hold becomes ±Inf.  Number types that are not Python's own (numpy, Decimal,
    bool) go through float.
    """
    if type(value) is int:
        if value.bit_length() <= _EXACT_BITS_MAX:
            return str(value)
        return "+Inf" if value > 0 else "-Inf"
    text = repr(float(value))
    # nan, inf and -inf are the only floats whose text ends in a letter.
    return text if text[-1] <= "9" else _SPECIAL[text]


_SPECIAL = {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}


def bound_text(bound: float) -> str:
    """`bound` as the value of an `le` or `quantile` label, in its one canonical spelling.

    Labels are compared as text, so a bound must read as Go and prometheus_client write it: 0.005,
    5.0, 1e+06, +Inf.
    """
    text = number_text(float(bound))
    dot = text.find(".")
    if bound > 0 and dot > 6:  # Go turns to exponents at seven digits, Python at seventeen
        return f"{text[0]}.{text[1:dot]}{text[dot + 1 :]}".rstrip("0.") + f"e+{dot - 1:02d}"
    return text


def timestamp_text(at_s: float) -> str:
    """Unix time in seconds, to the millisecond; empty for what is not a point in time."""
    return f"{at_s:.3f}" if math.isfinite(at_s) else ""


def escape_help(text: str, format: TextFormat) -> str:
    """`text` as it stands after `# HELP name `; OpenMetrics escapes the quote as well."""
    escaped = text.replace("\\", r"\\").replace("\n", r"\n")
    return escaped.replace('"', r"\"") if format == "openmetrics" else escaped
