"""How one response cache behaves: the values that its settings make."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """Bounds in bytes, seconds and numbers; see CacheSettings for what each means to a user."""

    entry_bytes_max: int = 1 << 20
    default_ttl_s: int | None = None
    heuristic: bool = False
    targeted: tuple[bytes, ...] = (b"cdn-cache-control",)
    request_directives: bool = True
    authorization_by_rfc: bool = False
    credentials: tuple[bytes, ...] = ()
    ignored_cookies: tuple[str, ...] = ()
    status_header: bool = True
    collapse: bool = True
    collapse_wait_s: float = 5.0
    waiting_max: int = 20_000
    refresh_max: int = 16
    refresh_timeout_s: float = 30.0
    outlive_s: float = 30.0
    """How long the app may go on with an answer whose client has left, while it is kept."""
    early_refresh: float = 1.0
    """XFetch's beta: 0 never, larger earlier."""
    storing_share_max: float = 0.25
    """Share of the store's bytes that bodies on their way into it may have at once."""
