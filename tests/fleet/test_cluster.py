"""A real cluster of three nodes on loopback: every record is found where it was stored."""

import asyncio
import contextlib
import socket
import time

import pytest
from redis.exceptions import SlotNotCoveredError

from perf_middleware.errors import StoreUnavailableError
from perf_middleware.fleet.drivers.cluster import ClusterLink
from perf_middleware.fleet.stores.script import Script
from tests.driving import ask, http_scope
from tests.fleet.processes import Load, Pages, Process, running, until
from tests.fleet.servers import STARTED_S, RedisServer

SLOTS = 16_384
BUS_ABOVE = 10_000  # how far above its port a node talks with the others
NODES = 3
SLACK_S = 60.0  # of a machine that does other things too

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_set")]


@pytest.fixture
def anyio_backend():
    return "asyncio"


def port_of_node():
    """A free port whose bus port is free too."""
    while True:
        with socket.socket() as chosen, socket.socket() as bus:
            chosen.bind(("127.0.0.1", 0))
            port = chosen.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                bus.bind(("127.0.0.1", port + BUS_ABOVE))
                return port


class Cluster:
    """Three nodes, a third of the slots each."""

    def __init__(self, directory):
        self.nodes = []
        try:
            for number in range(NODES):
                node = RedisServer(
                    directory / str(number), "--cluster-enabled", "yes",
                    "--cluster-node-timeout", "2000", port=port_of_node(),
                )  # fmt: skip
                self.nodes.append(node.start())
            self._join()
        except BaseException:
            self.stop()
            raise

    def _join(self):
        first = self.nodes[0]
        for number, node in enumerate(self.nodes):
            begin, end = number * SLOTS // NODES, (number + 1) * SLOTS // NODES
            # One by one, not ADDSLOTSRANGE: that is of 7.0, and 6.2 is served too.
            said = node.say("CLUSTER", "ADDSLOTS", *map(str, range(begin, end)))
            assert said == b"+OK", said
            node.say("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        for node in self.nodes[1:]:
            first.say("CLUSTER", "MEET", "127.0.0.1", str(node.port))
        until_s = time.monotonic() + STARTED_S
        while not all(self._is_whole(node) for node in self.nodes):
            assert time.monotonic() < until_s, "the cluster does not come together"
            time.sleep(0.05)

    @staticmethod
    def _is_whole(node):
        info = node.say_all("CLUSTER", "INFO")
        return b"cluster_state:ok" in info and b"cluster_known_nodes:3" in info

    @property
    def url(self):
        return self.nodes[0].url

    def nodes_with(self, pattern):
        """How many nodes have keys of this pattern."""
        return sum(node.say("KEYS", pattern) != b"*0" for node in self.nodes)

    def stop(self):
        for node in self.nodes:
            node.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """One that no test may harm."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stop()


def members(cluster, namespace, count=2, **more):
    pages = Pages()
    # The slots of a new connection are asked for, shard by shard: a slow machine needs its time.
    redis = {"cluster": True, "namespace": namespace, "timeout_s": 2, "connect_timeout_s": 3}
    return pages, [Process(pages, cluster.url, **redis | more) for _ in range(count)]


async def test_what_one_process_stores_the_others_have_from_any_node(cluster):
    pages, (one, two) = members(cluster, "share")
    async with running(one, two):
        for number in range(60):
            assert await one.reads(f"/{number}") == (f"/{number} 0".encode(), False)
        await one.settled()
        assert one.shared.stored == 60
        for number in range(60):
            assert await two.reads(f"/{number}") == (f"/{number} 0".encode(), True)
        assert len(pages.calls) == 60
        assert cluster.nodes_with("{share:cache:*}r:*") == NODES
        assert one.figure("perf_redis_refusals") == two.figure("perf_redis_refusals") == 0


async def test_variants_of_a_url_are_told_apart(cluster):
    pages, (one, two) = members(cluster, "vary")
    pages.fields = [(b"vary", b"accept-language")]
    async with running(one, two):
        for language in ("de", "fr"):
            for number in range(5):
                path, headers = f"/{number}", [("accept-language", language)]
                assert not (await one.reads(path, headers=headers))[1]
                await one.settled()
                assert (await two.reads(path, headers=headers))[1]
        assert not (await two.reads("/1", headers=[("accept-language", "it")]))[1]


async def test_the_first_look_up_of_a_variant_is_one_command(cluster):
    pages, (one, two) = members(cluster, "first")
    pages.fields = [(b"vary", b"accept-language")]
    async with running(one):
        for number in range(8):
            await one.reads(f"/{number}")
        await one.settled()
    for node in cluster.nodes:
        node.say("SCRIPT", "FLUSH")
    async with running(two):
        for number in range(8):
            before = two.link.commands
            assert (await two.reads(f"/{number}"))[1]
            assert two.link.commands == before + 1


@pytest.mark.parametrize(
    ("namespace", "purge"),
    [
        ("by-url", None),
        ("by-tag", {"tags": ["group"]}),
        ("by-tags", {"tags": ["other", "group"]}),
        ("by-pattern", {"pattern": "/p/*"}),
        ("all", {"everything": True}),
    ],
)
async def test_a_purge_in_one_process_is_one_in_all(namespace, purge, cluster):
    pages, (one, two, third) = members(cluster, namespace, 3)
    pages.fields = [(b"cache-groups", b'"group"')]
    paths = [f"/p/{number}" for number in range(12)]  # in several shards
    async with running(one, two):
        for path in paths:
            await one.reads(path)
            await one.settled()
            assert (await two.reads(path))[1]
            pages.change(path)
        if purge is None:
            for path in paths:
                assert await one.cache.purge(url=path) == 1
        else:
            await one.cache.purge(**purge)
        for path in paths:
            await until(lambda path=path: not two.cache.store.of_path(path.encode()))
        async with running(third):  # Redis alone
            for path in paths:
                assert (await third.reads(path))[0] == pages.now(path)
        pages.change("/p/1")
        await ask(two.perf, http_scope("/p/1", method="DELETE"))
        await until(lambda: not one.cache.store.of_path(b"/p/1"))


async def test_an_app_that_blocks_the_event_loop_does_not_make_an_answer_late(cluster):
    _, (process,) = members(cluster, "blocked", 1, timeout_s=1)
    async with running(process):
        for number in range(2):
            asking = asyncio.create_task(process.get(f"/{number}"))
            while not process.link.waiting:
                assert not asking.done()
                await asyncio.sleep(0)
            time.sleep(1.5)
            assert (await asking).status == 200
        assert process.figure("perf_redis_timeouts") == 0
        assert process.fleet.changes == {"up": 1, "down": 0}


async def test_a_node_that_freezes_or_dies_with_its_slots_harms_no_request(tmp_path):
    own = await asyncio.to_thread(Cluster, tmp_path)
    try:
        _, both = members(own, "dies", timeout_s=0.2, connect_timeout_s=1)
        async with running(*both), Load(*both, clients=4) as load:
            own.nodes[2].freeze()
            await until(lambda: not any(process.is_up for process in both))
            await load.more(100)
            own.nodes[2].thaw()
            await until(lambda: all(process.is_up for process in both))
            own.nodes[2].kill()
            await until(lambda: not any(process.is_up for process in both))
            await load.more(100)
        assert load.longest_s < 0.2 + SLACK_S
    finally:
        await asyncio.to_thread(own.stop)


async def test_what_was_purged_on_any_node_is_heard_by_all_when_it_is_asked(cluster):
    pages, (one, two) = members(cluster, "heard", lease_s=10)
    pages.fields = [(b"cache-groups", b'"group"')]
    for process in (one, two):
        process.fleet.keep_lease()
    async with running(one, two):
        await until(lambda: one.fleet.lease_until_us and two.fleet.lease_until_us)
        cluster_wide = b"{heard:fleet:0}l"
        for node in cluster.nodes:  # where it is: it is known since long who listens
            node.say("ZADD", cluster_wide.decode(), "-1", "-")
        for number in range(20):
            await two.reads(f"/{number}")
        assert len(two.cache.store.stored(two.cache.store.keys())) == 20
        await one.cache.purge(tags=["group"])
        assert await one.fleet.heard_by_all()
        assert not two.cache.store.keys()
        assert one.fleet._hearers.barriers.waited_out == 0


class Uncovered:
    """redis-py's client while nobody has a slot: its error is none of those of a single server."""

    def get_node_from_key(self, key):
        raise SlotNotCoveredError(f'Slot of "{key}" is not covered by the cluster.')

    async def execute_command(self, *words):
        self.get_node_from_key(words[-1])


@pytest.mark.parametrize("runs_script", [False, True])
async def test_a_slot_that_nobody_has_is_a_store_that_gives_no_answer(runs_script):
    link = ClusterLink(
        "redis://127.0.0.1:1", timeout_s=1, connect_timeout_s=1, heartbeat_s=1, waiting_max=9
    )
    link._cluster, link._loop = Uncovered(), asyncio.get_running_loop()
    asked = (
        link.run_script(Script("find"), (b"k",), ()) if runs_script else link._ask(("GET", b"k"))
    )
    with pytest.raises(StoreUnavailableError, match="not covered"):
        await asked
    assert link.waiting == 0
