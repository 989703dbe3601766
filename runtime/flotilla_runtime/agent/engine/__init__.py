"""Runs an agent: each call comes from its journal, or is made now and written."""
