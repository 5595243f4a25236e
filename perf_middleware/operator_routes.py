"""What the operators' endpoints of the features share: a route, and the parameters of its query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perf_middleware.asgi import ASGIApp

READING: Final = ("GET", "HEAD")
CHANGING: Final = ("POST",)
QUERY_BYTES_MAX: Final = 500
ID_CHARS_MAX: Final = 40


@dataclass(frozen=True, slots=True)
class OperatorRoute:
    """One endpoint: `path` is below the operators' prefix, `methods` in the order of Allow."""

    path: str
    answer: ASGIApp
    methods: tuple[str, ...]


class WrongParameterError(ValueError):
    """A query parameter is unknown, doubled or out of its bounds; the text says what is allowed."""


class Parameters:
    """The query of one request, each parameter at most once and known."""

    def __init__(self, query: bytes, allowed: Mapping[str, str]) -> None:
        if len(query) > QUERY_BYTES_MAX:
            raise WrongParameterError(f"a query has at most {QUERY_BYTES_MAX} bytes")
        self._given: dict[str, str] = {}
        self._allowed = allowed
        for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
            if name not in allowed:
                known = ", ".join(f"{key} ({what})" for key, what in allowed.items())
                raise WrongParameterError(
                    f"unknown parameter; allowed: {known}" if known else "no parameter is allowed"
                )
            if name in self._given:
                raise WrongParameterError(f"{name} is given twice")
            self._given[name] = value

    def text(self, name: str) -> str:
        """A parameter that must be there."""
        value = self._given.get(name, "")
        if not value or len(value) > ID_CHARS_MAX:
            raise self._wrong(name)
        return value

    def number(self, name: str, default: float | None, least: float, most: float) -> float | None:
        """A number within its bounds, or `default` where it is not given."""
        text = self._given.get(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            raise self._wrong(name) from None
        if not least <= value <= most:  # false for NaN as well
            raise self._wrong(name)
        return value

    def whole(self, name: str, default: int, most: int) -> int:
        """A whole number from 1 to `most`, or `default` where it is not given."""
        text = self._given.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
            raise self._wrong(name)
        return int(text)

    def one_of(self, name: str, default: str, known: Sequence[str]) -> str:
        """One of the `known` words, or `default` where it is not given."""
        text = self._given.get(name, default)
        if text not in known:
            raise self._wrong(name)
        return text

    def _wrong(self, name: str) -> WrongParameterError:
        return WrongParameterError(f"{name} must be {self._allowed[name]}")
