"""What a process has one of: its tracemalloc, its garbage collector's objects."""
