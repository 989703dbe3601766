"""The smallest object of each kind that the API server takes, and a way to change one field of it."""

import copy
from typing import Any

API_VERSION = "flotilla.dev/v1alpha1"

SMALLEST_SPECS: dict[str, dict[str, Any]] = {
    "ModelReplicaSet": {"model": {"name": "m", "source": "pvc://models/m"}},
    "VectorIndex": {
        "source": {"path": "pvc://documents"},
        "embedding": {"modelRef": {"name": "minilm"}, "dimension": 384},
    },
    "AgentFleet": {
        "agent": {"prompt": "You help."},
        "models": [{"role": "Default", "modelRef": {"name": "m"}}],
    },
}


def smallest(kind: str, *, name: str = "smallest", namespace: str = "default") -> dict[str, Any]:
    """An object with nothing but what must be there."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": copy.deepcopy(SMALLEST_SPECS[kind]),
    }


def changed(manifest: dict[str, Any], **values: Any) -> dict[str, Any]:
    """A copy with values at paths such as `spec__engine__maxModelLen`; None takes the field away.

    A number in the path is a position in a list.
    """
    copied = copy.deepcopy(manifest)
    for path, value in values.items():
        *parents, last = [int(part) if part.isdigit() else part for part in path.split("__")]
        here: Any = copied
        for part in parents:
            here = here[part] if isinstance(part, int) else here.setdefault(part, {})
        if value is None:
            del here[last]
        else:
            here[last] = value
    return copied
