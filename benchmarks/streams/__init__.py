"""Whether anything that a set goes through breaks a stream: see `python -m streams`."""
