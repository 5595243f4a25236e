"""A small shop: catalogue, orders, reports and live events over SQLite."""
