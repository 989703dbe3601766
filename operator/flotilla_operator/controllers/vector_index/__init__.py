"""VectorIndex: documents become a served index, one generation at a time."""
