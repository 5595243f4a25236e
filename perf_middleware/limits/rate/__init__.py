"""Rate limit: each caller has its quotas (GCRA)."""
