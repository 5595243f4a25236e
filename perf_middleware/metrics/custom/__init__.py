"""The app's own figures and timers: pure counting that any thread may do."""
