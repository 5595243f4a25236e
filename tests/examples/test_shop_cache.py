"""The shop's cached routes, over a real server: who gets what from the store, and until when."""

from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.examples.figures import value_of
from tests.examples.shop import place_order, stock_of

HIT = "perf_middleware; hit; ttl="


def customer(number: int) -> dict[str, str]:
    return {"Authorization": f"Bearer customer-{number}"}


def account_of(shop: httpx2.Client, number: int) -> httpx2.Response:
    return shop.get("/account", headers=customer(number))


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/catalogue/products/1601", id="one product"),
        pytest.param("/catalogue/products?category=lamps&limit=7", id="a page of them"),
        pytest.param("/catalogue/categories", id="the categories"),
    ],
)
def test_the_second_request_is_answered_from_the_store(shop, path):
    first, second = shop.get(path), shop.get(path)
    assert first.headers["cache-status"].startswith("perf_middleware; fwd=uri-miss; stored")
    assert second.headers["cache-status"].startswith(HIT)
    assert int(second.headers["age"]) < 30
    assert "age" not in first.headers
    assert (second.status_code, second.content) == (first.status_code, first.content)


def test_other_filters_are_other_answers(shop):
    pages = [shop.get(f"/catalogue/products?limit={limit}") for limit in (3, 4)]
    assert [len(page.json()["items"]) for page in pages] == [3, 4]


def test_a_change_of_a_product_is_seen_at_once_and_leaves_what_reads_no_products(shop):
    changed, page = "/catalogue/products/1602", "/catalogue/products?after=0-1601&limit=2"
    for path in (changed, page):
        shop.get(path)
        assert shop.get(path).headers["cache-status"].startswith(HIT)
    account_of(shop, 18)
    shop.patch(changed, json={"price_cents": 777})
    for path in (changed, page):
        anew = shop.get(path)
        assert anew.headers["cache-status"].startswith("perf_middleware; fwd=uri-miss; stored")
        product = anew.json() if path == changed else anew.json()["items"][0]
        assert product["price_cents"] == 777
        assert shop.get(path).headers["cache-status"].startswith(HIT)
    assert account_of(shop, 18).headers["cache-status"].startswith(HIT)


def test_a_refused_change_leaves_what_is_stored(shop):
    path = "/catalogue/products/1604"
    shop.get(path)
    assert shop.patch(path, json={"price_cents": -1}).status_code == 422
    assert shop.get(path).headers["cache-status"].startswith(HIT)


def test_an_order_shows_in_the_stock_at_once(shop):
    before = stock_of(shop, 1605)
    assert stock_of(shop, 1605) == before  # stored by now
    order = place_order(shop, (1605, 2))
    assert stock_of(shop, 1605) == before - 2
    shop.patch(f"/orders/{order['id']}", json={"status": "cancelled"})
    assert stock_of(shop, 1605) == before


def test_a_new_product_is_counted_in_its_category(shop):
    def lamps() -> int:
        rows = shop.get("/catalogue/categories").json()
        return next(row["products"] for row in rows if row["slug"] == "lamps")

    before = lamps()
    new = {"sku": "LAM-90003", "name": "Loud Tin Lamp", "category": "lamps", "price_cents": 990}
    assert shop.post("/catalogue/products", json=new).status_code == 201
    assert lamps() == before + 1


def test_each_customer_gets_only_their_own_account(shop):
    names = {}
    for _ in range(2):
        for number in range(21, 41):
            answer = account_of(shop, number)
            assert answer.status_code == 200
            names.setdefault(number, answer.json()["name"])
            assert answer.json()["name"] == names[number]
    assert account_of(shop, 21).headers["cache-status"].startswith(HIT)
    assert len(set(names.values())) > 10


def test_customers_who_ask_at_the_same_time_are_not_mixed_up(shop):
    numbers = [41, 42, 43, 44, 45] * 8
    with ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(lambda number: account_of(shop, number), numbers))
    owners = {number: account_of(shop, number).json()["name"] for number in set(numbers)}
    assert [answer.json()["name"] for answer in answers] == [owners[number] for number in numbers]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 401, id="no token"),
        pytest.param({"Authorization": "Bearer stranger"}, 401, id="a wrong one"),
        pytest.param({"Authorization": "Basic customer-46"}, 401, id="of another scheme"),
        pytest.param({"Cookie": "customer=46"}, 401, id="a cookie instead"),
        pytest.param(customer(999_999), 404, id="nobody's"),
    ],
)
def test_a_stored_account_is_nobody_elses(shop, headers, status):
    assert account_of(shop, 46).status_code == 200
    assert account_of(shop, 46).headers["cache-status"].startswith(HIT)
    for _ in range(2):  # the second must not find what the first brought
        other = shop.get("/account", headers=headers)
        assert other.status_code == status
        assert "hit" not in other.headers["cache-status"]


def test_caches_on_the_way_are_told_to_keep_no_account(shop):
    for _ in range(2):
        assert account_of(shop, 47).headers["cache-control"] == "private, no-cache"


def test_an_order_shows_in_its_customers_account_and_leaves_the_others_stored(shop):
    before = account_of(shop, 48).json()
    account_of(shop, 49)
    order = place_order(shop, (1606, 1), customer_id=48)
    after = account_of(shop, 48).json()
    assert after["orders"] == before["orders"] + 1
    assert after["spent_cents"] == before["spent_cents"] + order["total_cents"]
    assert account_of(shop, 49).headers["cache-status"].startswith(HIT)


def test_what_has_no_rule_is_asked_of_the_shop_each_time(shop):
    for _ in range(2):
        answer = shop.get("/orders/7")
        assert answer.headers["cache-status"] == (
            'perf_middleware; fwd=uri-miss; detail="no-freshness"'
        )


def test_hits_are_counted_under_the_route(shop):
    labels = {"route": "/catalogue/products/{product_id}"}
    before = value_of(shop, "perf_cache_hits_total", **labels)
    for _ in range(3):
        shop.get("/catalogue/products/1607")
    assert value_of(shop, "perf_cache_hits_total", **labels) == before + 2
