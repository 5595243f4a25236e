"""The shop's first rows: the same at every start, on every machine.

Pure: values in, rows out; `database.py` writes them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeAlias

from examples.fastapi_app.tables import OrderStatus

Row: TypeAlias = dict[str, Any]

PRODUCTS = 2_000
CUSTOMERS = 500
ORDERS = 5_000
LINES_PER_ORDER_MAX = 5

OPENED_AT = datetime(2025, 1, 1, 8, tzinfo=UTC)
ONE_YEAR = timedelta(days=364)

CATEGORIES = {
    "bags": ("Backpack", "Tote", "Satchel", "Duffel"),
    "bath": ("Towel", "Soap Dish", "Bath Mat", "Robe"),
    "bikes": ("Bell", "Saddle", "Pump", "Pannier"),
    "books": ("Atlas", "Cookbook", "Field Guide", "Notebook"),
    "camping": ("Tent", "Lantern", "Sleeping Bag", "Stove"),
    "ceramics": ("Mug", "Vase", "Bowl", "Plate"),
    "clocks": ("Wall Clock", "Alarm Clock", "Hourglass", "Timer"),
    "coffee": ("Grinder", "Kettle", "Dripper", "Moka Pot"),
    "desks": ("Desk", "Monitor Stand", "Footrest", "Drawer Unit"),
    "games": ("Chess Set", "Puzzle", "Dice Tower", "Domino Set"),
    "garden": ("Trowel", "Planter", "Watering Can", "Rake"),
    "kitchen": ("Pan", "Knife", "Cutting Board", "Colander"),
    "lamps": ("Desk Lamp", "Floor Lamp", "Pendant", "Night Light"),
    "music": ("Ukulele", "Metronome", "Music Stand", "Kalimba"),
    "paper": ("Sketchbook", "Envelope Set", "Calendar", "Poster"),
    "pets": ("Leash", "Feeder", "Cat Tree", "Aquarium"),
    "shoes": ("Boot", "Sandal", "Sneaker", "Slipper"),
    "sports": ("Yoga Mat", "Jump Rope", "Dumbbell", "Racket"),
    "tools": ("Hammer", "Spirit Level", "Chisel", "Vice"),
    "toys": ("Kite", "Train Set", "Spinning Top", "Puppet"),
}
QUALITIES = ("Classic", "Compact", "Everyday", "Folding", "Heavy", "Light", "Quiet", "Sturdy")
MATERIALS = ("Ash", "Bamboo", "Brass", "Canvas", "Copper", "Cork", "Felt", "Linen", "Oak", "Steel")
FIRST_NAMES = ("Ada", "Ben", "Chloe", "Dmitri", "Elif", "Femi", "Grace", "Hugo", "Ines", "Jun")
LAST_NAMES = ("Adler", "Brandt", "Costa", "Diaz", "Eriksen", "Fischer", "Greco", "Haddad", "Ito")

STATUSES = (
    OrderStatus.DELIVERED,
    OrderStatus.SHIPPED,
    OrderStatus.CONFIRMED,
    OrderStatus.CANCELLED,
)
STATUS_WEIGHTS = (80, 8, 6, 6)


@dataclass(slots=True)
class Rows:
    """Rows for each table, parents first."""

    categories: list[Row] = field(default_factory=list)
    products: list[Row] = field(default_factory=list)
    customers: list[Row] = field(default_factory=list)
    orders: list[Row] = field(default_factory=list)
    order_lines: list[Row] = field(default_factory=list)
    order_events: list[Row] = field(default_factory=list)


def seed_rows() -> Rows:
    """A year of trade; ids start at 1 and have no gaps."""
    random = Random(20_250_101)
    rows = Rows(
        categories=[
            {"id": number, "slug": slug, "name": slug.title()}
            for number, slug in enumerate(CATEGORIES, start=1)
        ],
        products=list(_products(random)),
        customers=list(_customers()),
    )
    for number in range(1, ORDERS + 1):
        _add_order(rows, number, random)
    return rows


def _products(random: Random) -> Iterator[Row]:
    families = list(enumerate(CATEGORIES.items(), start=1))
    for number in range(1, PRODUCTS + 1):
        category_id, (slug, nouns) = families[number % len(families)]
        quality, material = random.choice(QUALITIES), random.choice(MATERIALS)
        noun = random.choice(nouns)
        yield {
            "id": number,
            "sku": f"{slug[:3].upper()}-{number:05d}",
            "name": f"{quality} {material} {noun}",
            "description": (
                f"A {quality.lower()} {noun.lower()} made of {material.lower()}, "
                f"number {number} in our book of {slug}."
            ),
            "category_id": category_id,
            "price_cents": random.randrange(300, 25_000, 5),
            "stock": random.randrange(0, 400),
            "updated_at": OPENED_AT,
        }


def _customers() -> Iterator[Row]:
    for number in range(1, CUSTOMERS + 1):
        first = FIRST_NAMES[number % len(FIRST_NAMES)]
        last = LAST_NAMES[number % len(LAST_NAMES)]
        yield {
            "id": number,
            "name": f"{first} {last}",
            "email": f"{first}.{last}.{number}@example.org".lower(),
        }


def _add_order(rows: Rows, number: int, random: Random) -> None:
    total_cents = 0
    for position in range(1, random.randint(1, LINES_PER_ORDER_MAX) + 1):
        # Squaring favours the first products: some things sell better than others.
        product = rows.products[int(random.random() ** 2 * PRODUCTS)]
        quantity = random.randint(1, 4)
        total_cents += quantity * product["price_cents"]
        rows.order_lines.append(
            {
                "order_id": number,
                "position": position,
                "product_id": product["id"],
                "quantity": quantity,
                "unit_price_cents": product["price_cents"],
            }
        )
    placed_at = OPENED_AT + ONE_YEAR * number / ORDERS
    status = random.choices(STATUSES, STATUS_WEIGHTS)[0]
    rows.orders.append(
        {
            "id": number,
            "customer_id": random.randint(1, CUSTOMERS),
            "status": status,
            "placed_at": placed_at,
            "total_cents": total_cents,
        }
    )
    rows.order_events.append({"order_id": number, "status": status, "at": placed_at})
