"""Everything a VectorIndex is made of: Milvus Lite, the Jobs of a build, the retriever."""
