"""Runtime probes: the event loop, the garbage collector, the process itself."""
