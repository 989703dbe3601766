"""Models: the files that an engine needs, and what an engine pod's init containers say of them."""

from enum import StrEnum
from typing import Final

from pydantic import ConfigDict, JsonValue
from pydantic.alias_generators import to_camel

from flotilla_runtime.contract.sections import Section

MODEL_FACTS_CONTAINER: Final = "read-model-facts"


class ModelFacts(Section):
    """What a model's files say of it, left as the termination message of the container that read them.

    `config` holds the fields of its config.json that memory follows from, lists of names counted.
    `file_bytes` is the size of its weight files together, `stored_bytes` that of one number in them; None
    where it is not known.
    """

    config: dict[str, JsonValue]
    file_bytes: int | None = None
    stored_bytes: float | None = None


class FilesRole(StrEnum):
    """What files are to an engine."""

    MODEL = "Model"
    GUESSER = "Guesser"
    ADAPTER = "Adapter"


class EngineFiles(Section):
    """Files that must be there before an engine starts, and the field of the ModelReplicaSet that asks for
    them. With a `source` on the hub they are fetched; without one they lie in the folder already.
    """

    model_config = ConfigDict(
        extra="ignore", frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )

    role: FilesRole
    field: str
    folder: str
    source: str | None = None
    revision: str | None = None
    highest_rank: int | None = None
