"""The objects of a VectorIndex: Milvus Lite, the Jobs of a build, and the retriever."""
