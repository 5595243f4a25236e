"""The figures of batched functions, as a scrape sees them."""

import anyio

from perf_middleware.tasks.batching import batched, batching_families


async def items(keys):
    return [1 / key if key else ZeroDivisionError() for key in keys]


def test_the_figures_of_several_functions_are_one_set_of_families():
    now_us = iter(range(0, 10_000_000, 500_000))
    load = batched(wait_s=0, name="items", clock=lambda: next(now_us))(items)
    idle = batched(name="idle")(items)

    async def main():
        await load.many([1, 2, 2, 0], return_failures=True)

    anyio.run(main)
    families = {
        family.name: {point.labels.text: point.value for point in family.points}
        for family in batching_families([load.reading(), idle.reading()])
    }
    values = {name: points['batch="items"'] for name, points in families.items()}
    assert values == {
        "perf_batching_waiting": 0,
        "perf_batching_in_flight": 0,
        "perf_batching_asks": 4,
        "perf_batching_remembered": 0,
        "perf_batching_keys": 3,
        "perf_batching_calls": 1,
        "perf_batching_failed_calls": 0,
        "perf_batching_failed_keys": 1,
        "perf_batching_timeouts": 0,
        "perf_batching_refused": 0,
        "perf_batching_left": 0,
        "perf_batching_call_seconds": 0.5,
    }
    assert {points['batch="idle"'] for points in families.values()} == {0}
    load.reading().counts.reset()
    assert load.reading().counts.asks == 0
