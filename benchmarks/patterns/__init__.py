"""What the patterns of agents gain and what they survive: `make bench-patterns`."""
