"""Tracking: which tables a request has read, and which a transaction has written once it is in."""
