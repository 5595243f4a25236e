"""Is it a leak?  A trend, its witnesses, and one verdict with the evidence."""
