"""Content codings of what leaves and what enters (RFC 9110 §8.4, §12.5.3)."""
