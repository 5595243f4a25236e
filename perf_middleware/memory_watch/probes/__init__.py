"""What memory is used for, read from the system while the app runs."""
