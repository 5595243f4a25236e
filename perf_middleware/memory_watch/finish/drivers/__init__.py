"""What finishing asks of the system: a lock for the turn, siblings, a signal."""
