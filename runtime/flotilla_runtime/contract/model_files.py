"""The contract for models: the files that an engine needs, and the reports of the init containers."""

from enum import StrEnum
from typing import Final

from pydantic import ConfigDict, JsonValue
from pydantic.alias_generators import to_camel

from flotilla_runtime.contract.sections import Section

MODEL_FACTS_CONTAINER: Final = "read-model-facts"


class ModelFacts(Section):
    """Facts read from a model's files, reported as the termination message of an init container.

    `config` holds the fields of config.json from which memory is computed; lists of names are replaced by
    their lengths. `file_bytes` is the total size of the weight files and `stored_bytes` the size of one
    number in them; None where it is not known.
    """

    config: dict[str, JsonValue]
    file_bytes: int | None = None
    stored_bytes: float | None = None


class FilesRole(StrEnum):
    """The purpose of files for an engine; a guesser is the draft model of speculative decoding."""

    MODEL = "Model"
    GUESSER = "Guesser"
    ADAPTER = "Adapter"


class EngineFiles(Section):
    """Files that an engine needs before it starts, and the field of the ModelReplicaSet that names them.

    Files with a `source` are fetched from the hub; others are already in the folder.
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
