"""Does the retrieval step alone find the right page? Thirty questions over the demo's documents."""
