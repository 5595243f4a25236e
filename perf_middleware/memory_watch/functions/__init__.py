"""By how much memory grows while a function runs."""
