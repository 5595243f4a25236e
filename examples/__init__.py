"""Running examples of perf_middleware."""
