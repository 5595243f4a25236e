"""A process that keeps one thing in memory and answers out of it while its lease lasts.

Started with the URL, the namespace and the lease; each line of its input is a command, and gets
one line: `keep X`, `hit` (what it answers, or `-`: it asks the app), `leased` (waits for a lease),
`block S` (answered before the event loop is held up), `cut` (the connection, as if the network
had).
"""

import asyncio
import os
import sys
import time

from perf_middleware.clock import monotonic_us
from perf_middleware.fleet.runtime import Fleet


class Memory:
    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.kept = "-"
        records = fleet.records("cache")
        records.on_message = lambda _body: self.forget()
        records.on_gap = self.forget
        fleet.keep_lease()

    def forget(self) -> None:
        self.kept = "-"

    @property
    def has_lease(self) -> bool:
        return monotonic_us() < self.fleet.lease_until_us

    async def tell_lease(self) -> None:
        while not self.has_lease:
            await asyncio.sleep(0.005)
        answer("done")


def answer(text: str) -> None:
    os.write(1, text.encode() + b"\n")


async def main(url: str, namespace: str, lease_s: str) -> None:
    fleet = Fleet(url, namespace=namespace, timeout_s=5.0, lease_s=float(lease_s))
    memory = Memory(fleet)
    fleet.ensure_kept()
    ended = asyncio.Event()
    tasks = set()

    def do() -> None:
        """At once, as soon as it can be read: before what comes behind it from elsewhere."""
        what, _, argument = os.read(0, 1_000).decode().strip().partition(" ")
        match what:
            case "keep":
                memory.kept = argument
                answer("done")
            case "hit":
                answer(memory.kept if memory.has_lease else "-")
            case "leased":
                tasks.add(asyncio.create_task(memory.tell_lease()))
            case "block":
                answer("done")
                time.sleep(float(argument))
            case "cut":
                fleet.link.give_up("cut")
                answer("done")
            case _:
                ended.set()

    asyncio.get_running_loop().add_reader(0, do)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
