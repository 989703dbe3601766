"""Measures the gain of agents' patterns, and the faults that they survive: `make bench-patterns`."""
