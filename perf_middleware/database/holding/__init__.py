"""Who holds the connections of a pool, since when, and who waits for them."""
