"""The chart's restrict.enabled on a real API server, and attempts of users of the kinds."""

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from local_cluster.api_client import ApiClient
from local_cluster.errors import ApiError
from tests.builders.api_objects import smallest
from tests.support.policies import policies

KINDS = {
    "ModelReplicaSet": "modelreplicasets",
    "VectorIndex": "vectorindexes",
    "AgentFleet": "agentfleets",
}
# Each is refused whatever the lists of the chart have.
REFUSED: dict[str, dict[str, Any]] = {
    "ModelReplicaSet": {"pod": {"serviceAccountName": "x"}},
    "VectorIndex": {"milvus": {"image": "evil/milvus"}},
    "AgentFleet": {"image": "evil/agents"},
}


@contextmanager
def restricted_namespace(client: ApiClient, values: Mapping[str, str]) -> Iterator[str]:
    """A namespace in which the policies of `restrict` are in force, and nowhere else."""
    name = f"restricted-{secrets.token_hex(3)}"
    labels = {"restricted": "yes"}
    with policies(client, "-restrict-", values, only_in=labels) as made:
        assert made == 2 * len(KINDS)
        client.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
        deadline = time.monotonic() + 60
        for kind, refused in REFUSED.items():
            while attempt(client, name, kind, refused) is None:
                assert time.monotonic() < deadline, f"the policy of {kind} is not in force"
                time.sleep(0.5)
        yield name
        client.delete(f"/api/v1/namespaces/{name}")


def attempt(client: ApiClient, namespace: str, kind: str, spec: Mapping[str, Any]) -> str | None:
    """Try to create an object; the refusal, or None where it is admitted."""
    manifest = smallest(kind, name=f"x-{secrets.token_hex(3)}", namespace=namespace)
    manifest["spec"] = merged(manifest["spec"], spec)
    path = f"/apis/flotilla.dev/v1alpha1/namespaces/{namespace}/{KINDS[kind]}?dryRun=All"
    try:
        client.create(path, manifest)
    except ApiError as error:
        return error.message
    return None


def merged(held: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Both, with the change's values; None takes a field away."""
    both = dict(held)
    for field, value in change.items():
        inner = both.get(field)
        both[field] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return {field: value for field, value in both.items() if value is not None}
