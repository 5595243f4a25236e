"""Settings of the value cache: `PERFORMANCE_MEMO_*`."""

from __future__ import annotations

from pydantic import Field, SecretStr

from perf_middleware.caching.values.packing import COMPRESS_BYTES_MIN
from perf_middleware.caching.values.runtime import (
    BYTES_MAX,
    COLLAPSE_WAIT_S,
    ENTRIES_MAX,
    WAITING_MAX,
    ValueCache,
)
from perf_middleware.section import Section


class MemoSettings(Section):
    """The value cache: what functions returned, kept by their arguments (`perf.memo`).

    It keeps nothing until a function is decorated or a value is set.
    """

    enabled: bool = Field(
        default=True, description="Keep values; off: every call runs its function."
    )
    bytes_max: int = Field(default=BYTES_MAX, ge=64 * 1024, description="Memory for values, bytes.")
    entries_max: int = Field(default=ENTRIES_MAX, ge=1, description="How many values are kept.")
    share: bool = Field(
        default=True,
        description="Share values with other processes, where `redis.url` is set.",
    )
    collapse_wait_s: float = Field(
        default=COLLAPSE_WAIT_S, gt=0, le=3600,
        description="How long a call waits for another's run of the same, seconds.",
    )  # fmt: skip
    waiting_max: int = Field(
        default=WAITING_MAX, ge=0, description="How many may wait at once; more run themselves."
    )
    compress_bytes_min: int | None = Field(
        default=COMPRESS_BYTES_MIN, ge=0,
        description="Values of at least so many bytes are compressed outside of this process.",
    )  # fmt: skip
    pickle_key: SecretStr | None = Field(
        default=None, min_length=16,
        description="Signs pickles of what has no safe form outside of this process; none: no "
        "pickle is written or read.",
    )  # fmt: skip

    def make_cache(self) -> ValueCache:
        """A value cache of its own with these settings, in the memory of this process."""
        return ValueCache(
            enabled=self.enabled,
            bytes_max=self.bytes_max,
            entries_max=self.entries_max,
            collapse_wait_s=self.collapse_wait_s,
            waiting_max=self.waiting_max,
            compress_bytes_min=self.compress_bytes_min,
            pickle_key=self._pickle_bytes(),
        )

    def adopt(self, memo: ValueCache) -> ValueCache:
        """`memo` with what was set here by somebody; the rest as it was made."""
        said = self.model_fields_set
        memo.adjust(
            enabled=self.enabled if "enabled" in said else None,
            bytes_max=self.bytes_max if "bytes_max" in said else None,
            entries_max=self.entries_max if "entries_max" in said else None,
            collapse_wait_s=self.collapse_wait_s if "collapse_wait_s" in said else None,
            waiting_max=self.waiting_max if "waiting_max" in said else None,
        )
        if "compress_bytes_min" in said:
            memo.packer.compress_bytes_min = self.compress_bytes_min
        if "pickle_key" in said:
            memo.packer.pickle_key = self._pickle_bytes()
        return memo

    def _pickle_bytes(self) -> bytes | None:
        key = self.pickle_key
        return None if key is None else key.get_secret_value().encode()
