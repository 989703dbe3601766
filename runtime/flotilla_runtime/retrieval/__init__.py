"""The retriever: a question in, passages of the served index generation out."""
