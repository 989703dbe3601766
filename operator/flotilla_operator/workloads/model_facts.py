"""The init container that reports a model's size before its weights are fetched (runtime: models/facts.py).

It runs before the fetcher and has the same image, environment, token and mounts, so it can reach the hub
whenever the fetcher can. A model on a claim does not need it: the check of the folder takes a second and
reports the same facts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flotilla_operator.objects.resources import Manifest
from flotilla_runtime import contract

FETCHES = "--source"


def facts_first(model_container: Manifest) -> list[Manifest]:
    """The init containers for a model: for one that is fetched, the container that reports its size first."""
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
    """The facts from the first of these pods that reports any; its last container's report is preferred."""
    for pod in pods:
        ended = [
            (container.get("state") or {}).get("terminated") or {}
            for container in (pod.get("status") or {}).get("initContainerStatuses") or ()
        ]
        for message in reversed([end["message"] for end in ended if end.get("message")]):
            if (facts := _parsed(message)) is not None:
                return facts
    return None


def reported_by_revision(pods: Sequence[Mapping[str, Any]]) -> dict[str, contract.ModelFacts]:
    """Return the model's facts that the pods of each revision report."""
    by_revision: dict[str, list[Mapping[str, Any]]] = {}
    for pod in pods:
        revision = (pod["metadata"].get("labels") or {}).get(contract.LABEL_REVISION)
        if revision is not None:
            by_revision.setdefault(revision, []).append(pod)
    told = ((revision, reported(those)) for revision, those in by_revision.items())
    return {revision: facts for revision, facts in told if facts is not None}


def _parsed(message: str) -> contract.ModelFacts | None:
    """The facts in a termination message; None for the error text of a container that failed."""
    try:
        return contract.ModelFacts.model_validate_json(message)
    except ValueError:
        return None
