"""Tables: which of them a statement reads, which it writes, and what depends on them."""
