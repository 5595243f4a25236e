"""Requests over a quota are answered with 429, the others are told what is left."""

import logging

import anyio
import pytest

from perf_middleware.limits.callers import Callers
from perf_middleware.limits.networks import network_of
from perf_middleware.limits.rate.gcra import Left, Outcome
from perf_middleware.limits.rate.middleware import RateLimitLayer
from perf_middleware.limits.rate.runtime import RateLimit
from perf_middleware.limits.rate.specs import RuleSpec
from perf_middleware.path_patterns import PathPattern
from tests.driving import ask, http_scope
from tests.limits.rate.rate_stage import App, Clock, Stage, quota

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


def rule(path, *quotas, methods=None, **more):
    return RuleSpec(
        pattern=PathPattern.of(path),
        methods=None if methods is None else frozenset(methods),
        quotas=quotas or None,
        **more,
    )


# --- answers ------------------------------------------------------------------------------------


async def test_an_admitted_request_is_told_what_is_left():
    stage = Stage(quota("10/minute"))
    answer = await stage.ask()
    assert (answer.status, answer.body) == (200, b"hello")
    assert answer.header("ratelimit-policy") == '"default";q=10;w=60'
    assert answer.header("ratelimit") == '"default";r=9;t=6'
    assert answer.header("retry-after") is None


async def test_a_request_over_the_quota_never_reaches_the_app():
    stage = Stage(quota("2/minute"))
    assert [(await stage.ask()).status for _ in range(4)] == [200, 200, 429, 429]
    assert len(stage.app.reached) == 2
    assert stage.counts() == {"admitted": 2, "refused": 2}


async def test_a_refusal_says_what_and_until_when():
    stage = Stage(quota("2/minute", name="login"))
    for _ in range(2):
        await stage.ask()
    stage.clock.pass_s(0.5)
    answer = await stage.ask()
    assert answer.header("content-type") == "application/problem+json"
    assert answer.header("cache-control") == "no-store"
    assert answer.header("retry-after") == "30"
    assert answer.header("ratelimit") == '"login";r=0;t=30'
    assert answer.header("content-length") == str(len(answer.body))
    told = answer.json()
    assert (told["status"], told["quota"], told["violated-policies"]) == (429, "login", ["login"])
    assert told["title"]
    assert told["detail"] == "The quota login (2/minute) is used up for now."
    assert told["type"].endswith("#quota-exceeded")


async def test_who_comes_back_when_told_passes_and_not_a_second_before():
    stage = Stage(quota("7/minute"))
    for _ in range(7):
        await stage.ask()
    wait_s = int((await stage.ask()).header("retry-after"))
    stage.clock.pass_s(wait_s - 1)
    assert (await stage.ask()).status == 429
    stage.clock.pass_s(1)
    assert (await stage.ask()).status == 200


@pytest.mark.parametrize(
    "limits", [("2/minute",), ("100/minute", "2/minute", "50/hour")], ids=["one", "the tightest"]
)
async def test_the_last_answer_for_now_says_when_the_next_request_passes(limits):
    stage = Stage(*(quota(limit) for limit in limits))
    assert (await stage.ask()).header("retry-after") is None
    last = await stage.ask()
    assert (last.status, last.header("retry-after")) == (200, "30")
    stage.clock.pass_s(29)
    assert (await stage.ask()).status == 429
    stage.clock.pass_s(1)
    assert (await stage.ask()).status == 200


@pytest.mark.parametrize(
    ("status", "own", "told"),
    [(200, "7", "7"), (202, None, "60"), (500, None, None), (503, "9", "9")],
)
async def test_what_the_app_says_of_coming_again_stays(status, own, told):
    async def app(scope, receive, send):
        headers = [] if own is None else [(b"retry-after", own.encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    stage = Stage(quota("1/minute"), app=app)
    assert (await stage.ask()).header("retry-after") == told


async def test_head_is_refused_without_a_body():
    stage = Stage(quota("1/minute"))
    await stage.ask()
    answer = await stage.ask(method="HEAD")
    assert (answer.status, answer.body) == (429, b"")
    assert int(answer.header("content-length")) > 0


async def test_the_body_of_a_refused_request_is_not_read():
    stage = Stage(quota("1/minute"))
    await stage.ask()
    sent = []

    async def receive():
        raise AssertionError("the body was read")

    async def send(message):
        sent.append(message)

    await stage.layer(http_scope(method="POST"), receive, send)
    assert sent[0]["status"] == 429


async def test_what_costs_more_than_the_burst_has_no_time_to_come_back():
    stage = Stage(quota("10/minute", cost=lambda scope: 11))
    answer = await stage.ask()
    assert answer.status == 429
    assert answer.header("retry-after") is None
    assert answer.header("ratelimit") == '"default";r=10'
    assert "more than the quota" in answer.json()["detail"]


async def test_fields_of_the_app_stay_alone():
    stage = Stage(quota("10/minute"), app=App(("RateLimit", '"mine";r=1'), ("x-a", "b")))
    assert (await stage.ask()).headers == stage.app.headers


async def test_the_lists_of_the_app_stay_as_they_are():
    stage = Stage(quota("10/minute"), app=App(("x-a", "b")))
    await stage.ask()
    await stage.ask()
    assert stage.app.headers == [(b"x-a", b"b")]


@pytest.mark.parametrize(
    "fields_of",
    [
        pytest.param(dict, id="none"),
        pytest.param(lambda: {"headers": None}, id="None"),
        pytest.param(lambda: {"headers": ((b"x-a", b"b"),)}, id="a tuple"),
        pytest.param(lambda: {"headers": iter([(b"x-a", b"b")])}, id="what can be read once"),
    ],
)
async def test_a_head_whose_fields_are_no_list_gets_ours_behind_them(fields_of):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, **fields_of()})
        await send({"type": "http.response.body", "body": b"hello"})

    stage = Stage(quota("10/minute"), app=app)
    for left in ('"default";r=9;t=6', '"default";r=8;t=12'):
        answer = await stage.ask()
        assert answer.header("ratelimit") == left
        assert answer.headers[:-2] == [*(fields_of().get("headers") or ())]


@pytest.mark.parametrize(
    "own", [pytest.param([], id="no fields"), pytest.param([("x-kind", "plain")], id="one field")]
)
async def test_a_head_that_the_server_refuses_is_sent_to_it_once(own):
    stage, sent = Stage(quota("10/minute"), app=App(*own)), []
    await stage.ask()  # from now on such a head is known

    async def receive():
        return {"type": "http.request"}

    def send(message):
        sent.append(message["type"])
        raise KeyError("no such client")

    with pytest.raises(KeyError, match="no such client"):
        await stage.layer(http_scope("/"), receive, send)
    assert sent == ["http.response.start"]


async def test_each_client_is_told_its_own_numbers_in_turn():
    stage = Stage(quota("10/minute"))
    one, other = {"client": ("203.0.113.7", 1)}, {"client": ("203.0.113.8", 1)}
    told = [(await stage.ask(**each)).header("ratelimit") for each in (one, one, other, one, other)]
    assert told == [
        f'"default";r={left};t={full_s}'
        for left, full_s in [(9, 6), (8, 12), (9, 6), (7, 18), (8, 12)]
    ]
    stage.clock.pass_s(3)
    assert (await stage.ask(**other)).header("ratelimit") == '"default";r=7;t=15'


async def test_what_is_left_is_told_also_where_the_seconds_are_those_of_the_answer_before():
    stage = Stage(quota("100/minute"))
    await stage.ask(client=("203.0.113.8", 1))  # from now on such a head is known
    assert (await stage.ask()).header("ratelimit") == '"default";r=99;t=1'
    stage.clock.pass_s(0.2)
    assert (await stage.ask()).header("ratelimit") == '"default";r=98;t=1'


async def test_fields_can_be_left_out_or_told_in_the_old_way_too():
    assert (await Stage(quota("10/minute"), headers=False).ask()).headers == []
    answer = await Stage(quota("10/minute"), legacy_headers=True).ask()
    assert answer.header("x-ratelimit-limit") == "10"
    assert answer.header("x-ratelimit-remaining") == "9"
    assert answer.header("x-ratelimit-reset") == "6"


async def test_an_app_that_raises_raises_as_without_us():
    async def failing(scope, receive, send):
        raise LookupError("of the app")

    with pytest.raises(LookupError, match="of the app"):
        await Stage(quota("10/minute"), app=failing).ask()


async def test_a_layer_without_quotas_hands_everything_on():
    stage = Stage()

    async def receive():
        raise AssertionError

    sent = []

    async def send(message):
        sent.append(message)

    seen = []

    async def app(scope, receive, send):
        seen.append((receive, send))

    for kind in ("lifespan", "http", "websocket"):
        scope = http_scope() | {"type": kind}
        await RateLimitLayer(app, stage.rate)(scope, receive, send)
    assert seen == [(receive, send)] * 3


# --- whose bucket -------------------------------------------------------------------------------


async def test_each_client_has_a_bucket_of_its_own():
    stage = Stage(quota("1/minute"))
    assert (await stage.ask()).status == 200
    assert (await stage.ask(client=("192.0.2.2", 1))).status == 200
    assert (await stage.ask()).status == 429


async def test_no_field_of_a_client_is_an_escape():
    stage = Stage(quota("1/minute"))
    await stage.ask()
    headers = [("x-forwarded-for", "198.51.100.1"), ("forwarded", "for=198.51.100.2")]
    assert (await stage.ask(headers=headers)).status == 429


async def test_behind_a_proxy_the_clients_are_told_apart():
    callers = Callers(trusted_proxies=[network_of("192.0.2.1")])
    stage = Stage(quota("1/minute"), callers=callers)
    for address, status in (("198.51.100.1", 200), ("198.51.100.2", 200), ("198.51.100.1", 429)):
        assert (await stage.ask(headers=[("x-forwarded-for", address)])).status == status


async def test_a_proxy_that_was_not_declared_is_told_of_once(caplog):
    stage = Stage(quota("9/minute"))
    field = [("x-forwarded-for", "198.51.100.1")]
    for peer in ("10.0.0.1", "8.8.8.8"):
        await stage.ask(client=(peer, 1))
    for peer in ("8.8.4.4", "10.0.0.2", "10.0.0.3"):
        await stage.ask(client=(peer, 1), headers=field)
    [record] = caplog.records
    assert record.getMessage().startswith("10.0.0.2 forwards requests for others")


async def test_a_client_whom_the_server_has_found_in_the_field_is_no_undeclared_proxy(caplog):
    # uvicorn has put the address from the field into the peer's place: were it declared, as the
    # log would say, the client could name anybody.
    stage = Stage(quota("9/minute"))
    for line in ("10.0.0.7", "198.51.100.1, 10.0.0.7", "10.0.0.7, 10.9.9.9"):
        await stage.ask(client=("10.0.0.7", 0), headers=[("x-forwarded-for", line)])
    assert caplog.records == []


async def test_a_global_quota_is_one_for_all():
    stage = Stage(quota("1/minute", "global"))
    await stage.ask()
    assert (await stage.ask(client=("192.0.2.2", 1))).status == 429


async def test_several_quotas_hold_at_once_and_a_refusal_charges_none():
    stage = Stage(quota("3/minute"), quota("1/second", name="quick"))
    assert (await stage.ask()).status == 200
    for _ in range(5):
        answer = await stage.ask()
        assert answer.json()["violated-policies"] == ["quick"]
        assert answer.header("ratelimit-policy") == '"default";q=3;w=60, "quick";q=1;w=1'
        assert answer.header("ratelimit") == '"quick";r=0;t=1'
    for _ in range(2):
        stage.clock.pass_s(1)
        assert (await stage.ask()).status == 200
    stage.clock.pass_s(1)
    answer = await stage.ask()
    assert answer.json()["violated-policies"] == ["default"]
    assert stage.counts("quick") == {"admitted": 3, "refused": 5}
    assert stage.counts("default") == {"admitted": 3, "refused": 1}


async def test_three_quotas_that_refuse_are_all_named():
    stage = Stage(quota("1/minute"), quota("1/hour", name="hour"), quota("1/day", name="day"))
    await stage.ask()
    answer = await stage.ask()
    assert answer.json()["violated-policies"] == ["default", "hour", "day"]
    assert answer.header("retry-after") == "86400"


async def test_a_key_of_the_apps_own():
    stage = Stage(
        quota("1/minute", lambda scope: scope["path"][1] if scope["path"] != "/" else None)
    )
    assert (await stage.ask("/a1")).status == 200
    assert (await stage.ask("/a2")).status == 429
    assert (await stage.ask("/b1")).status == 200
    answer = await stage.ask("/")
    assert (answer.status, answer.header("ratelimit")) == (200, None)
    assert stage.counts() == {"admitted": 2, "refused": 1, "exempt": 1}


@pytest.mark.parametrize("key", [lambda scope: scope["no such"], lambda scope: object()])
async def test_a_key_that_fails_is_the_clients_and_told_once(caplog, key):
    stage = Stage(quota("2/minute", key))
    with caplog.at_level(logging.ERROR):
        assert [(await stage.ask()).status for _ in range(3)] == [200, 200, 429]
    assert [record.getMessage() for record in caplog.records] == [
        "the key of default failed; told again after 1000 more"
    ]
    failures = [f for f in stage.rate.families() if f.name.endswith("function_failures")]
    assert [value.value for value in failures[0].points] == [3]


async def test_a_cost_of_the_apps_own(caplog):
    def cost(scope):
        return {"/free": 0, "/two": 2}[scope["path"]]

    stage = Stage(quota("4/minute", cost=cost))
    assert (await stage.ask("/free")).header("ratelimit") is None
    assert (await stage.ask("/two")).header("ratelimit") == '"default";r=2;t=30'
    with caplog.at_level(logging.ERROR):
        answer = await stage.ask("/unknown")
    assert answer.header("ratelimit") == '"default";r=1;t=45'
    assert len(caplog.records) == 1


async def test_an_exemption_of_the_apps_own():
    stage = Stage(quota("1/minute", exempt=lambda scope: scope["path"] == "/mine"))
    for path, status in (("/", 200), ("/mine", 200), ("/", 429), ("/mine", 200)):
        assert (await stage.ask(path)).status == status


# --- rules and exemptions -----------------------------------------------------------------------


async def test_a_rule_names_the_quotas_that_hold_for_its_paths():
    stage = Stage(
        quota("100/minute"),
        rules=[
            rule("/login", quota("1/minute"), "default", methods=["POST"]),
            rule("/dear", cost=50),
            rule("/open/*", exempt=True),
        ],
    )
    answer = await stage.ask("/login", method="POST")
    assert answer.header("ratelimit") == '"POST /login";r=0;t=60, "default";r=99;t=1'
    assert (await stage.ask("/login", method="POST")).json()["quota"] == "POST /login"
    assert (await stage.ask("/login")).header("ratelimit") == '"default";r=98;t=2'
    assert (await stage.ask("/dear")).header("ratelimit") == '"default";r=48;t=32'
    assert (await stage.ask("/open/door")).header("ratelimit") is None


async def test_a_rules_path_is_the_one_below_root_path():
    stage = Stage(quota("100/minute"), rules=[rule("/login", quota("1/minute"))])
    answer = await stage.ask("/api/login", root_path="/api")
    assert answer.header("ratelimit-policy") == '"/login";q=1;w=60'


async def test_a_key_by_route_gives_each_rule_its_bucket():
    stage = Stage(
        quota("1/minute", "client+route"), rules=[rule("/a/{id}", cost=1), rule("/b/{id}", cost=1)]
    )
    for path, status in (("/a/1", 200), ("/a/2", 429), ("/b/1", 200), ("/x", 200), ("/y", 429)):
        assert (await stage.ask(path)).status == status, path


async def test_exempt_paths_and_networks_are_asked_nothing():
    stage = Stage(
        quota("1/minute"),
        exempt_paths=[PathPattern.of("/health")],
        exempt=[network_of("198.51.100.0/24")],
    )
    for _ in range(3):
        assert (await stage.ask("/health")).headers == []
        assert (await stage.ask(client=("198.51.100.9", 1))).headers == []
    await stage.ask()
    assert (await stage.ask()).status == 429
    assert points(stage.rate, "perf_ratelimit_requests")['quota="all",outcome="exempt"'] == 6


def points(rate, name):
    family = next(family for family in rate.families() if family.name == name)
    return {value.labels.text: value.value for value in family.points}


# --- dry run ------------------------------------------------------------------------------------


async def test_a_dry_run_changes_no_answer_and_counts():
    stage = Stage(quota("1/minute"), dry_run=True)
    answers = [await stage.ask() for _ in range(3)]
    assert [(answer.status, answer.headers) for answer in answers] == [(200, [])] * 3
    assert stage.counts() == {"admitted": 1, "would_refuse": 2}


async def test_one_quota_on_trial_stands_beside_one_that_holds():
    stage = Stage(quota("3/minute"), quota("1/minute", name="new", dry_run=True))
    answers = [await stage.ask() for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert answers[0].header("ratelimit-policy") == '"default";q=3;w=60'
    assert stage.counts("new") == {"admitted": 1, "would_refuse": 2}


# --- two places ---------------------------------------------------------------------------------


def two_places(*quotas, between=None, **options):
    clock = Clock()
    rate = RateLimit(quotas=quotas, clock=clock, **options)
    app = App()
    inner = RateLimitLayer(app, rate, place="inner")
    if between is not None:
        inner = between(inner)
    return RateLimitLayer(inner, rate, place="outer"), app


def signing_in(app):
    async def signed_in(scope, receive, send):
        await app({**scope, "user": dict(scope["headers"])[b"x-user"].decode()}, receive, send)

    return signed_in


async def test_a_quota_of_users_is_judged_inside_their_authentication():
    layer, app = two_places(
        quota("10/minute"), quota("1/minute", "user", name="user"), between=signing_in
    )

    async def ask_as(user):
        return await ask(layer, http_scope(headers=[("x-user", user)]))

    answer = await ask_as("ann")
    fields = [value for name, value in answer.headers if name == b"ratelimit"]
    assert fields == [b'"user";r=0;t=60', b'"default";r=9;t=6']
    assert (await ask_as("bob")).status == 200
    refused = await ask_as("ann")
    assert (refused.status, refused.json()["quota"]) == (429, "user")
    fields = [value for name, value in refused.headers if name == b"ratelimit"]
    assert fields == [b'"user";r=0;t=60', b'"default";r=7;t=18']
    assert len(app.reached) == 2


async def test_each_place_judges_its_own_quotas_only():
    layer, _ = two_places(quota("2/minute"), exempt_paths=[PathPattern.of("/health")])
    await ask(layer, http_scope("/health"))
    assert [(await ask(layer, http_scope())).status for _ in range(3)] == [200, 200, 429]
    assert points(layer.rate, "perf_ratelimit_requests") == {
        'quota="default",outcome="admitted"': 2,
        'quota="default",outcome="refused"': 1,
        'quota="all",outcome="exempt"': 1,
    }


# --- for the app's own code ---------------------------------------------------------------------


async def test_code_outside_of_requests_draws_from_the_same_bucket():
    stage = Stage(quota("3/minute"))
    taken = await stage.rate.take("default", "192.0.2.1", cost=2)
    assert (taken.admitted, taken.remaining, taken.retry_after_s) == (True, 1, None)
    assert (await stage.ask()).header("ratelimit") == '"default";r=0;t=20'
    peeked = await stage.rate.peek("default", "192.0.2.1")
    assert (peeked.admitted, peeked.retry_after_s) == (False, 20)
    refused = await stage.rate.take("default", "192.0.2.1")
    assert (refused.admitted, refused.retry_after_s, refused.full_after_s) == (False, 20, 60)
    await stage.rate.forget("default", "192.0.2.1")
    assert (await stage.ask()).header("ratelimit") == '"default";r=2;t=20'


async def test_what_never_passes_has_no_time_to_come_back():
    stage = Stage(quota("3/minute"))
    peeked = await stage.rate.peek("default", "192.0.2.1", cost=4)
    assert (peeked.admitted, peeked.retry_after_s) == (False, None)


async def test_a_wrong_name_or_cost_is_told():
    stage = Stage(quota("3/minute"))
    with pytest.raises(KeyError, match="no quota is called 'daily': default"):
        await stage.rate.take("daily", "192.0.2.1")
    with pytest.raises(ValueError, match="cost"):
        await stage.rate.take("default", "192.0.2.1", cost=0)


async def test_counts_go_back_to_zero_and_buckets_stay():
    stage = Stage(quota("1/minute"))
    await stage.ask()
    stage.rate.reset_counts()
    assert points(stage.rate, "perf_ratelimit_requests") == {}
    assert (await stage.ask()).status == 429


# --- shared -------------------------------------------------------------------------------------


class Distant:
    """Stands for quotas in Redis: each answer takes a turn of the loop, or as long as `waits`."""

    is_shared = True

    def __init__(self, *, admits=True, waits=False, fails=False) -> None:
        self.taken = []
        self._admits, self._waits, self._fails = admits, waits, fails

    async def take(self, demands):
        self.taken.append(tuple(demands))
        await anyio.lowlevel.checkpoint()
        if self._waits:
            await anyio.sleep_forever()
        if self._fails:
            raise RuntimeError("a mistake of ours")
        left = Left(3, 0 if self._admits else 2_500_000, 1_000_000)
        return Outcome(self._admits, tuple(left for _ in demands))


def shared(distant, *quotas, **options):
    stage = Stage(*quotas, **options)
    stage.rate.shared = distant
    return stage


async def test_what_is_shared_is_asked_once_with_all_demands():
    distant = Distant()
    stage = shared(distant, quota("5/minute", when_down="open"), quota("9/minute", name="b"))
    answer = await stage.ask()
    assert answer.header("ratelimit") == '"default";r=3;t=1, "b";r=3;t=1'
    [(first, second)] = distant.taken
    assert (first.key, first.when_down, first.cost) == (b"default|c192.0.2.1", "open", 1)
    assert second.key == b"b|c192.0.2.1"


async def test_what_is_shared_refuses_as_memory_does():
    stage = shared(Distant(admits=False), quota("5/minute"))
    answer = await stage.ask()
    assert (answer.status, answer.header("retry-after")) == (429, "3")
    assert stage.app.reached == []


async def test_a_client_that_leaves_meanwhile_is_charged_once_at_most():
    distant = Distant(waits=True)
    stage = shared(distant, quota("5/minute"), quota("1/minute", name="try", dry_run=True))
    with anyio.move_on_after(0.01) as scope:
        await stage.ask()
    assert scope.cancelled_caught
    assert len(distant.taken) == 1
    assert stage.app.reached == []


async def test_a_mistake_of_ours_is_no_error_of_the_app(caplog):
    stage = shared(Distant(fails=True), quota("5/minute"))
    with caplog.at_level(logging.ERROR):
        assert (await stage.ask()).status == 200
    assert "the rate limit failed" in caplog.text
