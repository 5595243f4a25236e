"""The garbage collector of this process: frozen after the start, tuned, its pauses explained."""
