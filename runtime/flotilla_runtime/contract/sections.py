"""What the configuration files and the answers over HTTP have in common."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Section(BaseModel):
    """A part of a configuration file; keys this version does not know are left to the version that does."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class WireModel(BaseModel):
    """What is said over HTTP, in the camelCase of Kubernetes."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, frozen=True
    )
