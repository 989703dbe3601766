"""Callers with tokens of a real API server, which decides by RBAC; the rules are in test_auth.py."""

import asyncio
import base64
import json
import secrets
import shlex
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import yaml

from flotilla_operator.objects.owners import Owner
from flotilla_operator.workloads.agent_fleet import review_binding
from flotilla_runtime.contract import GatewayAuth, gateway_audience
from flotilla_runtime.gateway.auth import Verb
from flotilla_runtime.gateway.problems import ProblemError
from flotilla_runtime.gateway.reviews import (
    HELD_AFTER_REFUSAL_SECONDS,
    PLACES_OF_UNKNOWN,
    Clocks,
    FleetName,
    KubernetesReviews,
    Reviewer,
    api_server_client,
)
from local_cluster.api_client import ApiClient
from local_cluster.control_plane import ControlPlane
from local_cluster.processes import wait_until
from tests.support.chart import rendered

pytestmark = pytest.mark.apiserver

ROOT = Path(__file__).parents[3]


class Callers:
    """Service accounts of one namespace, with roles on one fleet's tasks."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self._client = plane.client
        self._namespace = namespace

    def token(self, name: str, *verbs: str, fleet: str = "support", on: str = "tasks") -> str:
        """A new account that may do this, and a token of its for the fleet `support`."""
        self.account(name, *verbs, fleet=fleet, on=on)
        return self.another_token(name, audiences=[gateway_audience(self._namespace, "support")])

    def account(self, name: str, *verbs: str, fleet: str = "support", on: str = "tasks") -> None:
        """A new account that may do this."""
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

    def another_token(self, name: str, **spec: Any) -> str:
        """A token of an account that is there; without audiences one of the API server's own."""
        path = f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{name}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return str(self._client.create(path, request)["status"]["token"])


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


RBAC = "rbac.authorization.k8s.io"


@pytest.fixture(scope="module")
def role(control_plane: ControlPlane) -> str:
    """The ClusterRole of gateways, as the chart has it."""
    (manifest,) = [
        one
        for one in rendered()
        if one["kind"] == "ClusterRole" and one["metadata"]["name"].endswith("-operator-gateway")
    ]
    control_plane.kubectl("apply", "--filename=-", manifest=yaml.safe_dump(manifest))
    return str(manifest["metadata"]["name"])


@pytest.fixture
def own_token(control_plane: ControlPlane, namespace: str, role: str, tmp_path: Path) -> Path:
    """The token of a gateway, whose account is bound as the operator binds it."""
    callers = Callers(control_plane, namespace)
    callers.account("support-gateway")
    owner = Owner(kind="AgentFleet", namespace=namespace, name="support", uid="u")
    uid = control_plane.client.get(f"/api/v1/namespaces/{namespace}")["metadata"]["uid"]
    control_plane.client.create(f"/apis/{RBAC}/v1/clusterrolebindings", review_binding(owner, role, uid))
    path = tmp_path / "token"
    path.write_text(callers.another_token("support-gateway"))
    return path


Made = Callable[..., KubernetesReviews]
FLOOD = 10_000
FLOOD_AT_ONCE = 64


@pytest.fixture
async def made(control_plane: ControlPlane, namespace: str, own_token: Path) -> AsyncIterator[Made]:
    """Makes the authenticator of a gateway."""
    address = urlsplit(control_plane.url)
    environment = {
        "KUBERNETES_SERVICE_HOST": str(address.hostname),
        "KUBERNETES_SERVICE_PORT": str(address.port),
    }
    authority = control_plane.authority.pair.certificate
    clocks = Clocks(monotonic_seconds=time.monotonic, wall_seconds=time.time)
    async with api_server_client(environment, str(authority)) as client:
        yield partial(
            KubernetesReviews,
            Reviewer(client, own_token),
            FleetName(namespace=namespace, name="support"),
            clocks,
        )


@pytest.fixture
def reviews(made: Made) -> KubernetesReviews:
    return made()


@pytest.mark.holds(
    "tasks.md", "The verbs `create`, `get` and `list` on `agentfleets/tasks` say who may do what"
)
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


@pytest.mark.holds(
    "tasks.md",
    "Who may approve finds what waits, reads what is asked, and decides; who decided is in the journal",
)
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


@pytest.mark.holds(
    "tasks.md",
    "Only who may act, or is trusted, names another tenant, in the body or in a header; lists show "
    "tasks by tenant",
)
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


@pytest.mark.holds("start/kind.md", "The account that the page makes may ask the agent")
@pytest.mark.holds("tasks.md", "The account, role and binding of the page may submit and read its own tasks")
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
    account, audience = asking[asking.index("--account") + 1], gateway_audience(namespace, "support")
    token = ("create", "token", account, f"--audience={audience}")
    given = await asyncio.to_thread(plane.kubectl, *token, f"--namespace={namespace}")
    await asyncio.to_thread(wait_until_allowed, plane.client, namespace, "asker", "create", "get")
    identity = await reviews.identify(f"Bearer {given.strip()}", Verb.CREATE)
    assert identity.name == f"kubernetes:system:serviceaccount:{namespace}:asker"
    assert not (await reviews.identify(f"Bearer {given.strip()}", Verb.GET)).sees_all


@pytest.mark.holds(
    "tasks.md",
    "A token for another audience, an expired one and one without an audience get a 401 that names "
    "the audience to ask for",
)
@pytest.mark.attack(
    "A caller uses a token of another fleet, one that has expired, or one without an audience"
)
async def test_a_token_that_is_not_for_the_fleet_is_refused(
    control_plane: ControlPlane, namespace: str, made: Made, reviews: KubernetesReviews
) -> None:
    callers = Callers(control_plane, namespace)
    good, ours = callers.token("user", "create", "get"), gateway_audience(namespace, "support")
    assert (await reviews.identify(f"Bearer {good}", Verb.GET)).name.endswith(":user")
    for audiences in ([], [gateway_audience(namespace, "another")], [gateway_audience("another", "support")]):
        token = callers.another_token("user", audiences=audiences)
        assert ours in (await refused(reviews, token, Verb.GET, HTTPStatus.UNAUTHORIZED)).detail
    head, _, signature = good.split(".")
    for claims in ({"aud": [ours], "exp": 1}, {"sub": "x"}):
        forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        await refused(reviews, f"{head}.{forged}.{signature}", Verb.GET, HTTPStatus.UNAUTHORIZED)
    deleted = callers.another_token("user", audiences=[ours])
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    await asyncio.to_thread(control_plane.client.delete, f"{accounts}/user")
    await refused(reviews, deleted, Verb.GET, HTTPStatus.UNAUTHORIZED)


@pytest.mark.holds(
    "tasks.md",
    "A token of a fleet is of no use at the API server; the chart can let gateways take those of "
    "the API server",
)
@pytest.mark.attack("A gateway that was taken over uses its callers' tokens at the API server")
async def test_the_api_server_refuses_a_token_of_a_fleet(
    control_plane: ControlPlane, namespace: str, made: Made
) -> None:
    callers = Callers(control_plane, namespace)
    token = callers.token("boss", "*")
    verify = str(control_plane.authority.pair.certificate)
    tls = await asyncio.to_thread(ssl.create_default_context, cafile=verify)
    async with httpx2.AsyncClient(base_url=control_plane.url, verify=tls, trust_env=False) as client:

        async def status_with(one: str) -> int:
            bearer = {"Authorization": f"Bearer {one}"}
            body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
            path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
            return (await client.post(path, json=body, headers=bearer)).status_code

        cluster_token = callers.another_token("boss")
        assert (await status_with(token), await status_with(cluster_token)) == (401, 201)
    await refused(made(), cluster_token, Verb.GET, HTTPStatus.UNAUTHORIZED)
    identity = await made(accepts_cluster_tokens=True).identify(f"Bearer {cluster_token}", Verb.GET)
    assert identity.name.endswith(":boss")


@pytest.mark.holds(
    "tasks.md",
    "The gateway's own account may ask for two reviews and do nothing else, and has no token with "
    "other modes",
)
@pytest.mark.attack("A gateway that was taken over uses its own token")
def test_a_gateway_may_ask_for_reviews_and_do_nothing_else(
    control_plane: ControlPlane, namespace: str, own_token: Path
) -> None:
    user = f"system:serviceaccount:{namespace}:support-gateway"
    listed = control_plane.kubectl("auth", "can-i", "--list", f"--as={user}", f"--namespace={namespace}")
    rights = {tuple(line.split()) for line in listed.splitlines() if "[create]" in line or "[*]" in line}
    resources = {line[0] for line in rights if not line[0].startswith("[")}
    everybodys = {
        "selfsubjectreviews.authentication.k8s.io",
        "selfsubjectaccessreviews.authorization.k8s.io",
        "selfsubjectrulesreviews.authorization.k8s.io",
    }
    ours = {"tokenreviews.authentication.k8s.io", "subjectaccessreviews.authorization.k8s.io"}
    assert resources - everybodys == ours
    for verb, what in (("get", "secrets"), ("list", "pods"), ("create", "serviceaccounts/token")):
        assert control_plane.kubectl("auth", "can-i", verb, what, f"--as={user}", check=False).strip() == "no"


@pytest.mark.holds(
    "tasks.md", "16 unknown tokens are checked at a time, with a 429 beyond it, and good callers go on"
)
@pytest.mark.xdist_group("gateway")
@pytest.mark.attack("A flood of tokens that are none keeps good callers waiting")
async def test_ten_thousand_random_tokens_stop_no_good_caller_of_a_real_gateway(
    control_plane: ControlPlane, namespace: str, own_token: Path, own_fleet: Any
) -> None:
    """As fast as the machine sends them, for 20 s at most."""
    good = Callers(control_plane, namespace).token("user", "create", "get")
    address = urlsplit(control_plane.url)
    own_fleet.environment = {
        "KUBERNETES_SERVICE_HOST": str(address.hostname),
        "KUBERNETES_SERVICE_PORT": str(address.port),
    }
    process = await own_fleet.start_gateway(
        GatewayAuth.KUBERNETES,
        namespace=namespace,
        cluster_ca_path=str(control_plane.authority.pair.certificate),
        api_token_path=str(own_token),
    )
    statuses: Counter[int] = Counter()
    tokens = iter(secrets.token_hex(20) for _ in range(FLOOD))
    begun = time.monotonic()

    async def flood() -> None:
        async with own_fleet.client() as client:
            for token in tokens:
                if time.monotonic() > begun + 20:
                    return
                with suppress(httpx2.HTTPError):
                    answer = await client.get("/v1/tasks", headers={"Authorization": f"Bearer {token}"})
                    statuses[answer.status_code] += 1

    async with own_fleet.client(good) as client:
        assert (await client.get("/v1/tasks")).status_code == 200
        flooding = [asyncio.create_task(flood()) for _ in range(FLOOD_AT_ONCE)]
        answers = [(await client.get("/v1/tasks")).status_code]
        while not all(one.done() for one in flooding):
            answers.append((await client.get("/v1/tasks")).status_code)
        assert set(answers) == {200}
        assert len(answers) > 5
    seconds = time.monotonic() - begun
    assert set(statuses) == {401, 429}
    most_reviewed = (1 + seconds / HELD_AFTER_REFUSAL_SECONDS) * PLACES_OF_UNKNOWN
    assert statuses[401] <= most_reviewed
    assert good not in process.log.read_text()


async def refused(reviews: KubernetesReviews, token: str, verb: Verb, status: HTTPStatus) -> ProblemError:
    with pytest.raises(ProblemError) as refusal:
        await reviews.identify(f"Bearer {token}", verb)
    assert refusal.value.status is status
    assert token not in refusal.value.detail
    return refusal.value
