"""I/O with the API server: caches, fenced writes, events and the leader's lease."""
