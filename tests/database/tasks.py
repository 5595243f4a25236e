"""Runs the background tasks of a resource in tests."""

import asyncio


class Tasks:
    """The Background of a resource in tests."""

    def __init__(self):
        self.running = []

    def start(self, _name, run):
        self.running.append(asyncio.ensure_future(run()))

    async def stop(self):
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)
