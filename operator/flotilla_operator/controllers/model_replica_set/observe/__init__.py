"""Reads facts about a set from the caches. Only the engines' key is made here, where it is missing."""
