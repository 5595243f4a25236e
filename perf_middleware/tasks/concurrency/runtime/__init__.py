"""Tasks, threads and processes, a bounded number of each."""
