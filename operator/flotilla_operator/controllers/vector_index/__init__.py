"""The VectorIndex controller: it builds a searchable index from documents, one generation at a time."""
