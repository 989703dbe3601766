"""The container that says how large a model is before its weights are fetched (runtime: models/facts.py).

It stands before the fetcher and is its twin: same image, environment, token and mounts, so whatever lets the
one reach the hub lets the other. A model on a claim needs none, for the check of the folder is over in a
second and leaves the same message.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flotilla_operator.workloads.labels import Manifest
from flotilla_runtime import contract

FETCHES = "--source"


def facts_first(model_container: Manifest) -> list[Manifest]:
    """The init containers that bring a model; one that is fetched is measured first."""
    module, *arguments = model_container["args"]
    if FETCHES not in arguments:
        return [model_container]
    twin = {
        **model_container,
        "name": contract.MODEL_FACTS_CONTAINER,
        "args": [f"{module}.facts", *arguments],
    }
    return [twin, model_container]


def reported(pods: Sequence[Mapping[str, Any]]) -> contract.ModelFacts | None:
    """What the first of these pods that says anything says of its model; the last container knows best."""
    for pod in pods:
        ended = [
            (container.get("state") or {}).get("terminated") or {}
            for container in (pod.get("status") or {}).get("initContainerStatuses") or ()
        ]
        for message in reversed([end["message"] for end in ended if end.get("message")]):
            if (facts := _parsed(message)) is not None:
                return facts
    return None


def _parsed(message: str) -> contract.ModelFacts | None:
    """The facts in a message; a container that failed leaves a sentence instead."""
    try:
        return contract.ModelFacts.model_validate_json(message)
    except ValueError:
        return None
