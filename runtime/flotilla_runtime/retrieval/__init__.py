"""The retriever: answers a query with passages from the live generation of an index."""
