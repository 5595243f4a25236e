"""What the probes' readings mean: blocks, stalls, quotas: pure."""
