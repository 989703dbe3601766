"""The benchmark of seeded faults: see `make bench-faults`."""
