"""The decorators of the value cache, and what a call of a decorated function does."""
