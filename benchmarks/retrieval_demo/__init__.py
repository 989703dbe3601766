"""The benchmark of retrieval alone: for how many of thirty questions it finds the right page."""
