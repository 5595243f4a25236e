"""Buckets in Redis, for all processes: one script, one round trip, the server's clock.

Keys are `{app:quota}:<key>`.  What is in braces says where a cluster has them: all buckets of a
namespace are on one node, for only what is on one node can be charged all or none, and which of
them one request draws from (its client's, its user's, everybody's) is not known before.  A service
for which one node is not enough gives its quotas several namespaces.
"""

from __future__ import annotations

from struct import Struct
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
    from perf_middleware.limits.rate.gcra import Demand

GCRA: Final = Script("gcra", package=__package__)
FORGET: Final = Script("forget", package=__package__)
_pack = Struct(">dd").pack  # a third of what texts of the numbers cost, there and here
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
        if not demands:
            return Outcome(True, ())
        prefix = self._prefix
        keys = []
        arguments = []
        for key, quota, cost, _ in demands:
            charge_us = cost * quota.interval_us
            if not 0 <= charge_us <= quota.window_us:
                require_cost(cost)
                charge_us = min(charge_us, _TOO_MUCH_US)
            keys.append(prefix + key if len(key) <= KEY_BYTES_MAX else self._key(key))
            arguments.append(_pack(charge_us, quota.window_us))
        answer = await self._link.run(GCRA, keys, arguments)
        if len(keys) > 1:
            return _outcome(demands, answer)
        if type(answer) is not int:
            raise _not_ours(answer)
        # `outcome_of` written out for one demand.
        if answer >= 0:
            return Outcome(
                True, (Left((quota.window_us - answer) // quota.interval_us, 0, answer),)
            )
        full_us = -1 - answer
        over_us = charge_us - quota.window_us
        wait_us = full_us + over_us if over_us <= 0 else NEVER
        left = Left((quota.window_us - full_us) // quota.interval_us, wait_us, full_us)
        return Outcome(False, (left,))

    async def forget(self, key: bytes) -> None:
        """Its bucket is full again; raises as `take` does."""
        name = self._prefix + key if len(key) <= KEY_BYTES_MAX else self._key(key)
        await self._link.run(FORGET, [name], [])

    def _key(self, key: bytes) -> bytes:
        return self._prefix + bounded(key)


def _outcome(demands: Sequence[Demand], answer: Any) -> Outcome:
    if type(answer) is not list or len(answer) != len(demands):
        raise _not_ours(answer)
    if not all(type(number) is int for number in answer):
        raise _not_ours(answer)
    admitted = answer[0] >= 0
    return outcome_of(demands, admitted, [n if admitted else -1 - n for n in answer])


def _not_ours(answer: Any) -> StoreRefusedError:
    return StoreRefusedError(STORE, f"no answer of the script: {answer!r:.80}")
