"""Where worker processes of one host keep the figures they share."""
