"""The response cache (RFC 9111) and, later, the value cache."""
