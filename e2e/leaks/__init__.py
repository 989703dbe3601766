"""Secrets that tests plant, and the search for them in every status, event and log of a run."""
