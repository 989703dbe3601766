"""The stub's configuration: which tokens may read which repositories, and which faults occur."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]


class Access(BaseModel):
    """How a repository is protected; a repository that is not listed is public."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gated: bool = False
    """The list of its files is public; the files need a token that was granted access."""
    private: bool = False
    """For callers without access it does not exist."""
    revisions: tuple[str, ...] = ("main",)


class Cut(BaseModel):
    """The connection breaks after this many bytes of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    after_bytes: Annotated[int, Field(ge=0)]
    times: Count | None = None
    """How often it happens; without a value, every time."""


class Stall(BaseModel):
    """A download stalls after this many bytes of a file, until other faults are set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    after_bytes: Annotated[int, Field(ge=0)]


class Busy(BaseModel):
    """The hub answers with an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    times: Count
    status: Literal[429, 500, 502, 503, 504] = 503


class Faults(BaseModel):
    """The faults that occur; a POST to /admin/faults replaces all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cut: Cut | None = None
    stall: Stall | None = None
    busy: Busy | None = None


class Configuration(BaseModel):
    """The stub's configuration file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repositories: dict[str, Access] = {}
    tokens: dict[str, tuple[str, ...]] = {}
    """For each known token, the repositories that it may read."""
    faults: Faults = Faults()
