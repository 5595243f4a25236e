"""The operators' door: who may come in, and the JSON answers behind it."""
