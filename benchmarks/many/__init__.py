"""The benchmark of a thousand objects of all kinds: see `make bench-many`."""
