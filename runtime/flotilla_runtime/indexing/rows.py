"""The fields of a collection in Milvus, and the row of a chunk.

A change here needs a new COLLECTION_SCHEMA_VERSION in the contract, so that every index is built again.
"""

from collections.abc import Sequence
from typing import Any, Final

from pymilvus import DataType, MilvusClient

from flotilla_runtime.indexing.records import Chunk, document_id

LONGEST_VARCHAR_BYTES: Final = 65_535
LONGEST_PATH_BYTES: Final = 2_048
LONGEST_TITLE_BYTES: Final = 4_096


def schema_of(dimension: int, description: str) -> Any:
    """The collection's fields; missing values are empty or 0, because old versions of Milvus have no null."""
    fields = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False, description=description)
    fields.add_field("id", DataType.VARCHAR, max_length=64, is_primary=True)
    fields.add_field("document_id", DataType.VARCHAR, max_length=64)
    fields.add_field("document", DataType.VARCHAR, max_length=LONGEST_PATH_BYTES)
    fields.add_field("content_hash", DataType.VARCHAR, max_length=64)
    fields.add_field("ordinal", DataType.INT64)
    fields.add_field("total", DataType.INT64)
    fields.add_field("title", DataType.VARCHAR, max_length=LONGEST_TITLE_BYTES)
    fields.add_field("heading", DataType.VARCHAR, max_length=LONGEST_TITLE_BYTES)
    fields.add_field("anchor", DataType.VARCHAR, max_length=LONGEST_TITLE_BYTES)
    fields.add_field("page", DataType.INT64)
    fields.add_field("text", DataType.VARCHAR, max_length=LONGEST_VARCHAR_BYTES)
    fields.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
    return fields


def row_of(chunk: Chunk, vector: Sequence[float], content_hash: str, total: int) -> dict[str, Any]:
    """The row of a chunk; `total` is the number of chunks of its document."""
    return {
        "id": chunk.id,
        "document_id": document_id(chunk.document),
        "document": chunk.document,
        "content_hash": content_hash,
        "ordinal": chunk.ordinal,
        "total": total,
        "title": _shortened(chunk.title),
        "heading": _shortened(chunk.heading),
        "anchor": _shortened(chunk.anchor or ""),
        "page": chunk.page or 0,
        "text": chunk.text,
        "vector": list(vector),
    }


def _shortened(text: str) -> str:
    return text.encode()[:LONGEST_TITLE_BYTES].decode(errors="ignore")
