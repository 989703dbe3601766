"""What a controller may raise about the user's object.

    FlotillaError          carries field, problem, fix
    ├── SpecError        a person must change the object: SpecValid=False, Stalled
    └── ConfigError      the operator's own configuration is wrong: the process ends

`observe` and `plan` may raise `SpecError`, or pydantic's `ValidationError` of the kind's own model; the loop
turns it into conditions and looks again when the object changes. Any other exception is a failed reconcile:
it is logged, counted and repeated with backoff.
"""


class FlotillaError(Exception):
    """An error a person can act on."""

    def __init__(self, *, field: str, problem: str, fix: str) -> None:
        super().__init__(f"{field}: {problem}; {fix}")
        self.field = field
        self.problem = problem
        self.fix = fix


class SpecError(FlotillaError):
    """The spec cannot be acted on as it is."""


class ConfigError(FlotillaError):
    """The operator's configuration file cannot be used."""
