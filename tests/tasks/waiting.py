"""Waiting for what becomes true, however long the machine takes."""

import asyncio

WAIT_S = 120


async def until(is_true):
    """Wait for `is_true()`, which may be a coroutine."""
    async with asyncio.timeout(WAIT_S):
        while True:
            told = is_true()
            if asyncio.iscoroutine(told):
                told = await told
            if told:
                return
            await asyncio.sleep(0.005)
