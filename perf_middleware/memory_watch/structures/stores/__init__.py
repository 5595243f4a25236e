"""The structures themselves: they hold locks, so that any thread may use them."""
