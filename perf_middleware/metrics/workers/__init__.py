"""Adding up worker processes: snapshots, groups, merging: pure."""
