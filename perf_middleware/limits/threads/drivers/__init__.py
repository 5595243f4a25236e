"""What touches the insides of the event loops' thread limiters."""
