"""The benchmark of the operator's speed beside a bare client: see `make bench-scale`."""
