"""Settings of the operator endpoints: `PERFORMANCE_DASHBOARD_*`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from perf_middleware.section import Section


def _prefix(value: str) -> str:
    if not value.startswith("/") or value == "/" or value.endswith("/") or "{" in value:
        raise ValueError("must be a fixed path such as /_perf: starts with / and does not end in /")
    return value


class DashboardSettings(Section):
    """The JSON endpoints for operators."""

    enabled: bool = Field(default=True, description="Serve the operator endpoints.")
    prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        default="/_perf", description="The path below which all of them live."
    )
    token: SecretStr | None = Field(
        default=None, min_length=8,
        description="The token they ask for; none: a random one, printed at start.",
    )  # fmt: skip
