"""What every settings section is: frozen, and strict about unknown keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of the features' settings: a wrong key or value fails at start, never at a request."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
