"""What every settings section is: frozen, and strict about unknown keys."""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict

_FIXED_PATH = re.compile(r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._~!$&'()*+,;=:@-]+)+")


def _fixed_path(value: str) -> str:
    # As a server hands it over: decoded, without a query; anything else would never be asked for.
    if not _FIXED_PATH.fullmatch(value):
        raise ValueError(
            "must be a fixed path such as /metrics: it starts with / and does not end in /, "
            "without spaces, ?, #, %, { and other characters that a path has to escape"
        )
    return value


UrlPath: TypeAlias = Annotated[str, AfterValidator(_fixed_path)]
"""The path of an endpoint of ours (RFC 3986 §3.3, without escapes and dot segments)."""


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
