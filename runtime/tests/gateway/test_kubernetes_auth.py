"""Callers with tokens of a real API server, which decides by RBAC; the rules are in test_auth.py."""

import asyncio
import shlex
import time
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flotilla_runtime.gateway.auth import FleetName, KubernetesReviews, Verb, api_server_client
from flotilla_runtime.gateway.problems import ProblemError
from local_cluster.api_client import ApiClient
from local_cluster.control_plane import ControlPlane
from local_cluster.processes import wait_until

pytestmark = pytest.mark.apiserver

ROOT = Path(__file__).parents[3]


class Callers:
    """Service accounts of one namespace, with roles on one fleet's tasks."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self._client = plane.client
        self._namespace = namespace

    def token(self, name: str, *verbs: str, fleet: str = "support", on: str = "tasks") -> str:
        """A new account that may do this, and a token of its."""
        core = f"/api/v1/namespaces/{self._namespace}/serviceaccounts"
        rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self._namespace}"
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        self._client.create(core, account)
        if verbs:
            rule = {
                "apiGroups": ["flotilla.dev"],
                "resources": [f"agentfleets/{on}"],
                "resourceNames": [fleet],
                "verbs": list(verbs),
            }
            api_version = "rbac.authorization.k8s.io/v1"
            metadata = {"name": name}
            self._client.create(
                f"{rbac}/roles",
                {"apiVersion": api_version, "kind": "Role", "metadata": metadata, "rules": [rule]},
            )
            self._client.create(
                f"{rbac}/rolebindings",
                {
                    "apiVersion": api_version,
                    "kind": "RoleBinding",
                    "metadata": metadata,
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
                    "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": self._namespace}],
                },
            )
            wait_until_allowed(self._client, self._namespace, name, *verbs, fleet=fleet, on=on)
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        answer = self._client.create(f"{core}/{name}/token", request)
        return str(answer["status"]["token"])


def wait_until_allowed(
    client: ApiClient, namespace: str, account: str, *verbs: str, fleet: str = "support", on: str = "tasks"
) -> None:
    """The API server has seen the roles that were just made; it learns of them by a watch of its own."""

    def allowed(verb: str) -> bool:
        attributes = {
            "namespace": namespace,
            "verb": verb,
            "name": fleet,
            "group": "flotilla.dev",
            "resource": "agentfleets",
            "subresource": on,
        }
        user = f"system:serviceaccount:{namespace}:{account}"
        api_version = "authorization.k8s.io/v1"
        kind = {"apiVersion": api_version, "kind": "SubjectAccessReview"}
        spec = {"user": user, "resourceAttributes": attributes}
        answer = client.create(f"/apis/{api_version}/subjectaccessreviews", {**kind, "spec": spec})
        return bool(answer["status"]["allowed"])

    wait_until(lambda: all(map(allowed, verbs)), part=f"rights of {account}", timeout_seconds=120)


@pytest.fixture
async def reviews(control_plane: ControlPlane, namespace: str) -> AsyncIterator[KubernetesReviews]:
    address = urlsplit(control_plane.url)
    environment = {
        "KUBERNETES_SERVICE_HOST": str(address.hostname),
        "KUBERNETES_SERVICE_PORT": str(address.port),
    }
    authority = control_plane.authority.pair.certificate
    async with api_server_client(environment, str(authority)) as client:
        yield KubernetesReviews(client, FleetName(namespace=namespace, name="support"), time.monotonic)


async def test_rbac_decides_who_submits_who_reads_and_who_sees_all(
    control_plane: ControlPlane, namespace: str, reviews: KubernetesReviews
) -> None:
    callers = Callers(control_plane, namespace)
    user = callers.token("user", "create", "get")
    identity = await reviews.identify(f"Bearer {user}", Verb.CREATE)
    assert identity.name == f"kubernetes:system:serviceaccount:{namespace}:user"
    assert identity.sees_all is False
    assert (await reviews.identify(f"Bearer {user}", Verb.GET)).name == identity.name

    auditor = callers.token("auditor", "get", "list")
    assert (await reviews.identify(f"Bearer {auditor}", Verb.GET)).sees_all is True
    await refused(reviews, auditor, Verb.CREATE, HTTPStatus.FORBIDDEN)


async def test_rbac_decides_who_approves(
    control_plane: ControlPlane, namespace: str, reviews: KubernetesReviews
) -> None:
    callers = Callers(control_plane, namespace)
    boss, user = callers.token("boss", "approve"), callers.token("user", "create", "get", "list")
    assert (await reviews.identify(f"Bearer {boss}", Verb.APPROVE)).name.endswith(":boss")
    reader = await reviews.identify(f"Bearer {boss}", Verb.GET)
    assert (reader.approves, reader.sees_own, reader.sees_all) == (True, False, False)
    await refused(reviews, boss, Verb.CREATE, HTTPStatus.FORBIDDEN)
    await refused(reviews, user, Verb.APPROVE, HTTPStatus.FORBIDDEN)
    assert not await reviews.may_approve(f"Bearer {user}")


async def test_rbac_decides_who_names_another_tenant(
    control_plane: ControlPlane, namespace: str, reviews: KubernetesReviews
) -> None:
    callers = Callers(control_plane, namespace)
    assert await reviews.may_act(f"Bearer {callers.token('front', 'act', on='tenants')}")
    assert not await reviews.may_act(f"Bearer {callers.token('everything', '*')}"), "of tasks, not of tenants"
    elsewhere = callers.token("elsewhere", "act", fleet="another", on="tenants")
    assert not await reviews.may_act(f"Bearer {elsewhere}")


async def test_who_may_nothing_here_is_refused(
    control_plane: ControlPlane, namespace: str, reviews: KubernetesReviews
) -> None:
    callers = Callers(control_plane, namespace)
    await refused(reviews, callers.token("nobody"), Verb.GET, HTTPStatus.FORBIDDEN)
    other = callers.token("other", "create", "get", fleet="another")
    await refused(reviews, other, Verb.CREATE, HTTPStatus.FORBIDDEN)
    await refused(reviews, "not-a-token", Verb.GET, HTTPStatus.UNAUTHORIZED)


async def test_the_account_of_the_documentation_may_submit_and_read(
    control_plane: ControlPlane, namespace: str, reviews: KubernetesReviews
) -> None:
    plane, apply = control_plane, ("apply", "--server-side", "--force-conflicts")
    await asyncio.to_thread(plane.kubectl, *apply, f"--filename={ROOT / 'crds'}")
    await asyncio.to_thread(plane.kubectl, "wait", "--for=condition=Established", "crd", "--all")
    text = (ROOT / "docs" / "tasks.md").read_text()
    text, _, _ = text.partition("\n## ")
    lines = [shlex.split(line) for line in text.splitlines() if line.startswith(("kubectl", ".venv/bin"))]
    (asking,) = [line for line in lines if line[1] == "ask"]
    for _, *arguments in [line for line in lines if line[1] == "create"]:
        there = [part.replace("default:", f"{namespace}:") for part in arguments]
        there = [part.replace("=assistant", "=support") for part in there]
        await asyncio.to_thread(plane.kubectl, *there, f"--namespace={namespace}")
    token = ("create", "token", asking[asking.index("--account") + 1])
    given = await asyncio.to_thread(plane.kubectl, *token, f"--namespace={namespace}")
    await asyncio.to_thread(wait_until_allowed, plane.client, namespace, "asker", "create", "get")
    identity = await reviews.identify(f"Bearer {given.strip()}", Verb.CREATE)
    assert identity.name == f"kubernetes:system:serviceaccount:{namespace}:asker"
    assert not (await reviews.identify(f"Bearer {given.strip()}", Verb.GET)).sees_all


async def refused(reviews: KubernetesReviews, token: str, verb: Verb, status: HTTPStatus) -> None:
    with pytest.raises(ProblemError) as refusal:
        await reviews.identify(f"Bearer {token}", verb)
    assert refusal.value.status is status
    assert token not in refusal.value.detail
