"""Finds the Python code that a fleet names as `module:function`."""

import importlib
from typing import Any

from flotilla_runtime.contract.failure_texts import what_and_where


class ProgramError(Exception):
    """Code that the fleet names cannot be used; `field` names it, and the message says what to do."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


def referred(field: str, reference: str) -> Any:
    """The function that `module:function` names; functions of classes are `module:Class.function`."""
    found = imported(field, reference, "function")
    if not callable(found):
        module_name, _, path = reference.partition(":")
        raise ProgramError(field, f"the module {module_name} has no function {path}")
    return found


def imported(field: str, reference: str, what: str) -> Any:
    """The object that `module:attribute` names, which the messages call `what`; None where there is none."""
    module_name, colon, path = reference.partition(":")
    if not (module_name and colon and path):
        raise ProgramError(field, f"{reference!r} is not of the form module:{what}")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as problem:
        if problem.name and (module_name == problem.name or module_name.startswith(f"{problem.name}.")):
            message = f"the image has no module {module_name}; check spec.image and the name"
            raise ProgramError(field, message) from problem
        raise ProgramError(
            field, f"importing {module_name} failed: the image has no module {problem.name}"
        ) from problem
    except Exception as problem:
        what = what_and_where(problem)
        raise ProgramError(field, f"importing {module_name} failed: {what}") from problem
    for name in path.split("."):
        found = getattr(found, name, None)
    return found
