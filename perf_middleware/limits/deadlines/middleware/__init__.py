"""The layers that hold requests to their deadline, and to what may come in."""
