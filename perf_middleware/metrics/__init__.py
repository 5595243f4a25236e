"""Metrics: timing of requests, exposition, custom figures, runtime probes."""
