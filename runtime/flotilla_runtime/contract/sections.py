"""The base classes of configuration files and of answers over HTTP."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Section(BaseModel):
    """A part of a configuration file; unknown keys are ignored, because a newer operator may write them."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class WireModel(BaseModel):
    """A body of an HTTP request or answer, with camelCase names as in Kubernetes."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, frozen=True
    )
