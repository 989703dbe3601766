"""What the operator costs beside a bare client, and whether it keeps up: see `make bench-scale`."""
