"""`perf.memo`: the app's own value cache, or one that the settings make."""

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from perf_middleware import ConfigurationError, Settings, SettingsError, ValueCache, install


def test_without_one_of_its_own_an_app_has_one_from_the_settings(nothing_set):
    perf = install(Starlette(), Settings(memo={"bytes_max": 1 << 20}))
    assert isinstance(perf.memo, ValueCache)
    assert perf.memo.status()["bytes_max"] == 1 << 20
    other = install(Starlette(), Settings())
    assert other.memo is not perf.memo


def test_the_settings_have_the_last_word_on_the_apps_own(nothing_set, monkeypatch):
    monkeypatch.setenv("PERFORMANCE_MEMO_ENTRIES_MAX", "5")
    memo = ValueCache(bytes_max=1 << 20)
    perf = install(Starlette(), Settings(memo={"pickle_key": "0123456789abcdef"}), memo=memo)
    assert perf.memo is memo
    assert memo.status()["bytes_max"] == 1 << 20, "what nobody set stays as it was made"
    assert memo._core.memory.entries_max == 5
    assert memo.packer.unpack(memo.packer.pack({print}, key="k"), key="k") == {print}


def test_it_is_switched_off_by_the_settings(nothing_set):
    memo = ValueCache()

    @memo.cached(ttl=60)
    def load(number):
        return [number]

    load(5)
    perf = install(Starlette(), Settings(memo={"enabled": False}), memo=memo)
    assert load(5) is not load(5)
    assert (load.stats().bypassed, load.stats().hits) == (2, 0)
    assert perf.status()["memo"] is None
    assert "perf_memo_calls" not in {family.name for family in perf.metrics.families()}


def test_what_is_no_value_cache_is_refused(nothing_set):
    with pytest.raises(ConfigurationError, match="memo must be a ValueCache, not dict"):
        install(Starlette(), Settings(), memo={})


def test_a_short_secret_is_refused_without_being_told(nothing_set):
    with pytest.raises(SettingsError) as caught:
        Settings(memo={"pickle_key": "secret"})
    assert "secret'" not in str(caught.value)
    assert "must be text of at least 16 characters" in str(caught.value)


def test_endpoints_of_an_app_share_it_and_operators_see_it(nothing_set):
    memo = ValueCache()
    runs = []

    @memo.cached(ttl=60, name="products", tags="product:{number}")
    async def product(number):
        runs.append(number)
        return {"number": number}

    async def read(request):
        return JSONResponse(await product(request.path_params["number"]))

    async def write(request):
        await request.state.perf.memo.purge(tags=f"product:{request.path_params['number']}")
        return JSONResponse({})

    app = Starlette(
        routes=[Route("/{number:int}", read), Route("/{number:int}", write, methods=["PUT"])]
    )
    perf = install(app, Settings(), memo=memo)
    with TestClient(app) as client:
        assert [client.get("/5").json() for _ in range(3)] == [{"number": 5}] * 3
        assert len(runs) == 1
        page = client.get("/metrics").text
        assert 'perf_memo_hits_total{function="products"} 2' in page
        assert 'perf_memo_calls_total{function="products"} 3' in page
        client.put("/5")
        client.get("/5")
        assert len(runs) == 2
    told = perf.status()["memo"]
    assert (told["calls"], told["hits"], told["entries"], told["invalidated"]) == (4, 2, 1, 1)
    perf.metrics.reset_own()
    assert product.stats().calls == 0
