"""Purges after commits: grouped, in order, finished."""

import asyncio

from perf_middleware.database.tracking.runtime.purges import CommitPurges


def run(main):
    asyncio.run(asyncio.wait_for(main, 60))


def test_commits_that_come_while_one_is_purged_are_one_purge_together():
    async def main():
        purges, rounds, gate = CommitPurges(), [], asyncio.Event()

        async def purge(tags):
            rounds.append(sorted(tags))
            await gate.wait()

        purges.add(purge)
        first = asyncio.create_task(purges.purged({"a"}))
        while not rounds:
            await asyncio.sleep(0)
        others = [asyncio.create_task(purges.purged({name})) for name in "bcd"]
        for _ in range(5):
            await asyncio.sleep(0)
        assert rounds == [["a"]]
        gate.set()
        await asyncio.gather(first, *others)
        assert rounds == [["a"], ["b", "c", "d"]]
        assert purges.rounds == 2

    run(main())


def test_the_next_round_does_not_wait_until_all_have_heard_of_the_last():
    async def main():
        purges, rounds, heard = CommitPurges(), [], asyncio.Event()

        async def purge(tags):
            rounds.append(sorted(tags))

        purges.add(purge)
        purges.then(heard.wait)
        writers = [asyncio.create_task(purges.purged({"a"}))]
        while not rounds:
            await asyncio.sleep(0)
        writers.append(asyncio.create_task(purges.purged({"b"})))
        while len(rounds) < 2:
            await asyncio.sleep(0)
        assert not any(writer.done() for writer in writers)
        heard.set()
        await asyncio.gather(*writers)

    run(main())


def test_what_is_made_of_others_is_purged_after_them():
    async def main():
        purges, order = CommitPurges(), []

        def purger(name):
            async def purge(tags):
                order.append(name)

            return purge

        purges.add(purger("responses"), is_last=True)
        purges.add(purger("values"))
        await purges.purged({"a"})
        assert order == ["values", "responses"]

    run(main())


def test_another_event_loop_hands_over_and_waits():
    async def main():
        purges, loops = CommitPurges(), []

        async def purge(tags):
            loops.append(asyncio.get_running_loop())

        purges.add(purge)
        purges.bind()
        await asyncio.to_thread(lambda: asyncio.run(purges.purged({"a"})))
        assert loops == [asyncio.get_running_loop()]

    run(main())


def test_a_loop_that_stands_still_is_waited_for_by_nobody():
    purges, loops = CommitPurges(), []

    async def purge(tags):
        loops.append(asyncio.get_running_loop())

    async def bind():
        purges.bind()

    async def main():
        await purges.purged({"a"})
        assert loops == [asyncio.get_running_loop()]

    purges.add(purge)
    still = asyncio.new_event_loop()
    try:
        still.run_until_complete(bind())
        run(main())
    finally:
        still.close()
