"""What the processes of a service, or its runs one after another, tell each other of warming."""
