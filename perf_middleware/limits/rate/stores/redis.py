"""Buckets in Redis, for all processes: one script, one round trip, the server's clock.

Keys are `{app:quota}:<key>`.  What is in braces says where a cluster has them: all buckets of a
namespace are on one node, for only what is on one node can be charged all or none, and which of
them one request draws from (its client's, its user's, everybody's) is not known before.  A service
for which one node is not enough gives its quotas several namespaces.
"""

from __future__ import annotations

from struct import Struct, error
from typing import TYPE_CHECKING, Final

from perf_middleware.errors import StoreRefusedError
from perf_middleware.fleet.drivers.port import STORE
from perf_middleware.fleet.layout import bytes_of
from perf_middleware.fleet.stores.script import Script
from perf_middleware.limits.rate.gcra import (
    NEVER,
    WINDOW_US_MAX,
    Left,
    Outcome,
    outcome_of,
    require_cost,
)
from perf_middleware.limits.rate.stores import KEY_BYTES_MAX, bounded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from perf_middleware.fleet.drivers.port import Link
    from perf_middleware.limits.rate.gcra import Demand, Quota

GCRA: Final = Script("gcra", package=__package__)
_pack = Struct(">dd").pack  # a third of what texts of the numbers cost, there and here
_each = Struct(">d").iter_unpack
_new = tuple.__new__
_TOO_MUCH_US: Final = 2 * WINDOW_US_MAX  # passes no quota, and is still exact


class SharedQuotas:
    """A bucket that is full expires; how many there may be is for Redis to bound.

    The clock is the server's, in the script itself: processes need not agree on the time.
    """

    def __init__(self, link: Link, *, namespace: str = "app") -> None:
        self._link = link
        self._prefix = b"{%b:quota}:" % bytes_of(namespace)

    async def take(self, demands: Sequence[Demand]) -> Outcome:
        """Judge one request and charge it in one step.

        Raises StoreUnavailableError, after which it may have been charged or not, and
        StoreRefusedError.
        """
        if len(demands) != 1:
            return await self._take_several(demands)
        # `outcome_of` written out for one demand.
        ((key, quota, cost, _),) = demands
        window_us = quota.window_us
        charge_us = cost * quota.interval_us
        if not 0 <= charge_us <= window_us:
            charge_us = _charge_us(cost, quota)
        name = self._prefix + (key if len(key) <= KEY_BYTES_MAX else bounded(key))
        full_us = await self._link.run(GCRA, (name,), (_pack(charge_us, window_us),))
        if type(full_us) is not int:
            raise _not_ours(full_us)
        if full_us >= 0:
            left = _new(Left, ((window_us - full_us) // quota.interval_us, 0, full_us))
            return _new(Outcome, (True, (left,)))
        full_us = -1 - full_us
        wait_us = NEVER if charge_us > window_us else full_us + charge_us - window_us
        remaining = (window_us - full_us) // quota.interval_us
        return Outcome(False, (Left(remaining, wait_us, full_us),))

    async def forget(self, key: bytes) -> bool:
        """Its bucket is full again; whether there was one.  Raises as `take`."""
        return bool(await self._link.command("UNLINK", self._key(key)))

    def _key(self, key: bytes) -> bytes:
        return self._prefix + bounded(key)

    async def _take_several(self, demands: Sequence[Demand]) -> Outcome:
        if not demands:
            return Outcome(True, ())
        prefix = self._prefix
        keys = []
        asked = b""
        for key, quota, cost, _ in demands:
            keys.append(prefix + (key if len(key) <= KEY_BYTES_MAX else bounded(key)))
            asked += _pack(_charge_us(cost, quota), quota.window_us)
        answer = await self._link.run(GCRA, keys, (asked,))
        try:
            full_us = [int(number) for (number,) in _each(answer)]
        except (TypeError, ValueError, OverflowError, error):
            raise _not_ours(answer) from None
        if len(full_us) != len(keys):
            raise _not_ours(answer)
        if full_us[0] < 0:
            return outcome_of(demands, False, [-1 - us for us in full_us])
        return outcome_of(demands, True, full_us)


def _charge_us(cost: int, quota: Quota) -> int:
    charge_us = cost * quota.interval_us
    if not 0 <= charge_us <= _TOO_MUCH_US:
        require_cost(cost)
        return _TOO_MUCH_US
    return charge_us


def _not_ours(answer: Any) -> StoreRefusedError:
    return StoreRefusedError(STORE, f"no answer of the script: {answer!r:.80}")
