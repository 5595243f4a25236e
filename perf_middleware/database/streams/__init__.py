"""Stream guard: a response that streams holds no connection which it does not need."""
