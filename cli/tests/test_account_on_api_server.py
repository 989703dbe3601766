"""The token that `flotilla --account` asks a real API server for: what it is good for, and for how long."""

import base64
import json
from collections.abc import Sequence

import httpx2
import pytest

from flotilla_cli.gateways import Fleet, Where, no_account, token_for
from flotilla_runtime.contract import gateway_audience
from local_cluster.control_plane import ControlPlane

pytestmark = pytest.mark.apiserver

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"


def asked(plane: ControlPlane, namespace: str) -> str:
    """A token for the gateway of the fleet `support`, for an account made as the error message says."""
    fleet = Fleet(name="support", namespace=namespace, uid="u1", url="http://gateway", mode="Kubernetes")
    commands, _, _ = no_account(fleet).partition("tasks: ")[2].partition("; then")
    for command in commands.split(" && "):
        plane.kubectl(*command.split()[1:])

    def kubectl(arguments: Sequence[str]) -> str:
        return plane.kubectl(*arguments)

    token = token_for(kubectl, Where(fleet="support", account="asker"), fleet, {})
    assert token is not None
    return token


def is_known(plane: ControlPlane, token: str, *audiences: str) -> bool:
    """Whether the API server takes the token for these audiences; without, for its own."""
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, **({"audiences": audiences} if audiences else {})},
    }
    return bool(plane.client.create(REVIEWS, review)["status"].get("authenticated"))


@pytest.mark.holds(
    "tasks.md",
    "`flotilla` sends the kubeconfig's token only where its user says so, and never in clear to "
    "another machine; it asks no proxy for this machine, and sends nothing to a Service that is "
    "not the fleet's",
)
@pytest.mark.attack("What answers behind a fleet's Service gets the token of a cluster's administrator")
def test_a_token_for_a_gateway_is_good_there_alone_and_for_minutes(
    control_plane: ControlPlane, namespace: str
) -> None:
    token = asked(control_plane, namespace)
    assert is_known(control_plane, token, gateway_audience(namespace, "support"))
    assert not is_known(control_plane, token, gateway_audience(namespace, "another"))
    assert not is_known(control_plane, token, gateway_audience("another", "support"))
    assert not is_known(control_plane, token), "not by the API server itself"
    with httpx2.Client(verify=False) as stranger:
        server = json.loads(control_plane.kubectl("config", "view", "--output=json"))["clusters"][0]
        path = f"{server['cluster']['server']}/api/v1/namespaces/{namespace}"
        answer = stranger.get(path, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    part = token.split(".")[1]
    told = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert told["exp"] - told["iat"] <= 600
