"""The benchmark of open streams during scaling, updates, drains and restarts: see `make bench-streams`."""
