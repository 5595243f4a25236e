"""The smallest app: three routes, a websocket, a lifespan."""
