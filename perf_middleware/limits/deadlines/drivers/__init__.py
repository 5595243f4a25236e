"""What the event loops do differently: timers, and how a request is cancelled."""
