"""A failure as a value: of one item among many, where the others go on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Failed:
    """One item has failed with `error`; `index` is its place, where it is known.

    A bulk function gives one back for the key that failed; helpers that run many things give one in
    the place of a result.
    """

    error: BaseException
    index: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.error, BaseException):  # nobody could raise it later
            raise TypeError(f"Failed takes an exception, not {self.error!r:.100}")
