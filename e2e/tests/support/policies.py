"""Admission policies of the chart on a real API server."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from local_cluster.api_client import ApiClient
from tests.support.chart import rendered

POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
BINDINGS = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"


@contextmanager
def policies(
    client: ApiClient, part: str, values: Mapping[str, str], *, only_in: Mapping[str, Any] | None = None
) -> Iterator[int]:
    """The policies whose names have a part, and their bindings, in namespaces with the labels `only_in`."""
    made = []
    for manifest in rendered(values):
        if part in manifest["metadata"]["name"]:
            path = POLICIES if manifest["kind"] == "ValidatingAdmissionPolicy" else BINDINGS
            if path == BINDINGS and only_in is not None:
                manifest["spec"]["matchResources"] = {"namespaceSelector": {"matchLabels": dict(only_in)}}
            client.create(path, manifest)
            made.append(f"{path}/{manifest['metadata']['name']}")
    yield len(made)
    for path in made:
        client.delete(path)
