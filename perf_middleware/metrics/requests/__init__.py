"""What is counted, timed and told of requests and websockets: pure."""
