"""The layers that encode what leaves and decode what enters."""
