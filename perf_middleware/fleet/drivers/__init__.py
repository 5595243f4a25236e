"""The ways to a Redis server, and to a cluster of them."""
