"""Who may read what, and which faults the stub has."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]


class Access(BaseModel):
    """How a repository is protected; one that is not mentioned is open to all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gated: bool = False
    """Its listing is public, its files need a token that has been let in."""
    private: bool = False
    """To others it does not exist."""
    revisions: tuple[str, ...] = ("main",)


class Cut(BaseModel):
    """Connections break off when a file has been sent this far."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    after_bytes: Annotated[int, Field(ge=0)]
    times: Count | None = None
    """How often; for ever where it is absent."""


class Stall(BaseModel):
    """A download stands still when a file has been sent this far, until other faults are set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    after_bytes: Annotated[int, Field(ge=0)]


class Busy(BaseModel):
    """The hub answers with an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    times: Count
    status: Literal[429, 500, 502, 503, 504] = 503


class Faults(BaseModel):
    """What goes wrong; posted to /admin/faults, it replaces what was set before."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cut: Cut | None = None
    stall: Stall | None = None
    busy: Busy | None = None


class Configuration(BaseModel):
    """The stub's configuration file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repositories: dict[str, Access] = {}
    tokens: dict[str, tuple[str, ...]] = {}
    """The repositories that each known token opens."""
    faults: Faults = Faults()
