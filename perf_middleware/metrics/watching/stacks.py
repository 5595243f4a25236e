"""The lines of a stack, as values.  Whose code each is, code_roots.py tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class StackLine:
    """One line of a stack, as strings: a kept frame would keep every local of the request alive."""

    function: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


Stack: TypeAlias = Sequence[StackLine]
"""Innermost line first."""
