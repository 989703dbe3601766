"""Milvus Lite and an embedder for the tests of builds."""

from indexing_support.fixtures import embedder, index, milvus, parser

__all__ = ["embedder", "index", "milvus", "parser"]
