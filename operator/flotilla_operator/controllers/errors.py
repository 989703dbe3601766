"""The errors that a person can act on.

    FlotillaError          carries field, problem, fix
    ├── SpecError        a person must change the object: SpecValid=False, Stalled
    └── ConfigError      the operator's own configuration is wrong: the process ends

`observe`, `decide` and `act` may raise `SpecError`, or pydantic's `ValidationError` of the kind's own model.
The loop turns these into conditions and reconciles again when the object changes. Any other exception is a
failed reconcile, which is logged, counted and repeated with backoff.
"""


class FlotillaError(Exception):
    """An error that names the field, the problem and the fix."""

    def __init__(self, *, field: str, problem: str, fix: str) -> None:
        super().__init__(f"{field}: {problem}; {fix}")
        self.field = field
        self.problem = problem
        self.fix = fix


class SpecError(FlotillaError):
    """The spec is invalid or contradicts itself."""


class ConfigError(FlotillaError):
    """The operator's configuration file cannot be used."""
