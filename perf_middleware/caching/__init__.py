"""Response cache: a shared HTTP cache inside the app (RFC 9111)."""
