"""What this process's memory is used for, how near it is to its limit, and what is done then."""
