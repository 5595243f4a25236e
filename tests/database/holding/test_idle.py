"""The idle connections of a watched pool: taken and put back as by the pool itself."""

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from perf_middleware.database.holding.runtime import PoolWatch


@pytest.mark.parametrize("size", [1, 2])
def test_an_async_pool_takes_and_keeps_connections_as_it_would_unwatched(run, tmp_path, size):
    async def main():
        engine = create_async_engine(
            f"sqlite+aiosqlite:///{tmp_path}/own.db", pool_size=size, max_overflow=2 - size
        )
        watch = PoolWatch("own")
        watch.attach(engine)
        for _ in range(2):
            async with engine.connect(), engine.connect():
                assert (watch.now().lent, watch.now().idle) == (2, 0)
            # Beyond its size the queue is full: the pool's own way closes what comes back.
            assert (watch.now().lent, watch.now().idle, watch.now().overflow) == (0, size, 0)
        assert (watch.counts.loans, watch.counts.made, watch.counts.waits) == (4, 4 - size, 0)
        await engine.dispose()

    run(main())
