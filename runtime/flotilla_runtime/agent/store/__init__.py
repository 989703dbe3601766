"""Tasks in Redis: scripts, connections, and what a Redis says of itself."""
