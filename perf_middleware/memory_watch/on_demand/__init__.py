"""A look at the memory of this process: snapshot, compare, collect, count, trace."""
