"""Whether anything that a set goes through breaks a stream: see `make bench-streams`."""
