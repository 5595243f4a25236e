"""What every settings section is: frozen, and strict about unknown keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of the features' settings: a wrong key or value fails at start, never at a request.

    A field that may hold a secret is a `SecretStr`: that type alone is what keeps its value out of
    errors, logs and the doctor.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        # Every comparison with nan is false: it would pass the range checks of our validators.
        allow_inf_nan=False,
        # The error of a section that is built by hand must not print the value it refuses.
        hide_input_in_errors=True,
    )
