"""Settings of the operator endpoints: `PERFORMANCE_DASHBOARD_*`."""

from __future__ import annotations

from pydantic import Field, SecretStr

from perf_middleware.section import Section, UrlPath


class DashboardSettings(Section):
    """The JSON endpoints for operators."""

    enabled: bool = Field(default=True, description="Serve the operator endpoints.")
    prefix: UrlPath = Field(default="/_perf", description="The path below which all of them live.")
    token: SecretStr | None = Field(
        default=None, min_length=8,
        description="The token they ask for; none: a random one, printed at start.",
    )  # fmt: skip
