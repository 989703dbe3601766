"""Attacks with the operator's token against the chart's operator.bounds, on a real API server.

The attacker is the operator's user in the group that may do everything, so the policies alone stop it: they
hold also where RBAC would let something through. That the operator's own life passes, with the same policies
and its own rights, is in test_chart_rights.py.
"""

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from local_cluster.api_client import ApiClient, Manifest
from local_cluster.control_plane import ADMINISTRATORS, ControlPlane
from local_cluster.errors import ApiError
from tests.builders.api_objects import smallest
from tests.support.chart import NAMESPACE, RELEASE, of_kind, rendered
from tests.support.policies import POLICIES, policies

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]

ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-operator"
GATEWAYS = f"{NAMESPACE}-{RELEASE}-operator-gateway"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
OURS = {"app.kubernetes.io/managed-by": "flotilla"}
SET = "ModelReplicaSet"
SETS = "/apis/flotilla.dev/v1alpha1/modelreplicasets"
STRONG_BUT_LISTED = "listed"


class Site:
    """A namespace with a set `llama` that names the account `models`, and accounts of others."""

    def __init__(self, plane: ControlPlane) -> None:
        self.administrator = plane.client
        self.attacker = plane.client_for(plane.user(ACCOUNT, groups=[ADMINISTRATORS]))
        self.namespace = f"team-{secrets.token_hex(3)}"
        self.empty = f"{self.namespace}-empty"
        for name in (self.namespace, self.empty):
            create_namespace(self.administrator, name)
        listed = json.dumps([f"{self.namespace}/{STRONG_BUT_LISTED}"])
        self.values = {"operator.bounds.serviceAccounts": listed}
        self.set = self.made("llama", account="models")
        self.for_admins = self.made("admins", account="admin")
        for name in ("models", "other", "admin", STRONG_BUT_LISTED, "default"):
            self.account(name)
        self.account("llama-router", metadata=self.owned(self.set))
        for name in ("admin", STRONG_BUT_LISTED):
            self.may_read_secrets(name)
        self.account("ci", namespace=self.empty)
        self.may_read_secrets("ci", namespace=self.empty)

    def made(self, name: str, *, account: str) -> Manifest:
        manifest = smallest(SET, name=name, namespace=self.namespace)
        manifest["spec"]["pod"] = {"serviceAccountName": account}
        path = f"/apis/flotilla.dev/v1alpha1/namespaces/{self.namespace}/modelreplicasets"
        return self.administrator.create(path, manifest)

    def account(self, name: str, *, metadata: Manifest | None = None, namespace: str = "") -> None:
        path = f"/api/v1/namespaces/{namespace or self.namespace}/serviceaccounts"
        with suppress(ApiError):  # where a controller makes `default`, it may be there
            self.administrator.create(path, {"metadata": {**(metadata or {}), "name": name}})

    def may_read_secrets(self, account: str, *, namespace: str = "") -> None:
        namespace = namespace or self.namespace
        folder = f"{RBAC}/namespaces/{namespace}"
        rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]
        self.administrator.create(f"{folder}/roles", {"metadata": {"name": account}, "rules": rules})
        self.administrator.create(f"{folder}/rolebindings", binding("Role", account, account, namespace))

    def owned(self, owner: Manifest, **metadata: Any) -> Manifest:
        reference = {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "controller": True,
        }
        return {"labels": OURS, "ownerReferences": [reference], **metadata}

    def attempt(
        self,
        path: str,
        body: Manifest,
        *,
        namespace: str = "",
        as_: ApiClient | None = None,
        query: str = "?dryRun=All",
    ) -> str | None:
        """Try to create an object, by a dry run unless said; the refusal, or None where it is admitted."""
        client, (root, plural) = as_ or self.attacker, path.rsplit("/", 1)
        place = "" if namespace == "-" else f"/namespaces/{namespace or self.namespace}"
        try:
            client.create(f"{root}{place}/{plural}{query}", body)
        except ApiError as error:
            return error.message
        return None

    def pod(self, account: str, *, owner: Manifest | None = None, **spec: Any) -> Manifest:
        metadata = self.owned(owner or self.set, name=f"p-{secrets.token_hex(3)}")
        containers = [{"name": "c", "image": "i"}]
        return {
            "metadata": metadata,
            "spec": {"serviceAccountName": account, "containers": containers, **spec},
        }


def create_namespace(client: ApiClient, name: str) -> None:
    with suppress(ApiError):
        client.create("/api/v1/namespaces", {"metadata": {"name": name}})


def binding(kind: str, role: str, account: str, namespace: str, *, name: str = "") -> Manifest:
    return {
        "metadata": {"name": name or account, "labels": OURS},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }


def deployment(pod: Manifest) -> Manifest:
    labels = {"app": "x"}
    template = {"metadata": {"labels": labels}, "spec": pod["spec"]}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    return {"metadata": pod["metadata"], "spec": spec}


def secret(site: Site, type_: str, **metadata: Any) -> Manifest:
    return {"metadata": site.owned(site.set, name="x", **metadata), "type": type_}


@pytest.fixture(scope="module")
def site(control_plane: ControlPlane) -> Iterator[Site]:
    made = Site(control_plane)
    create_namespace(made.administrator, NAMESPACE)
    with policies(made.administrator, "-bounds-", made.values) as count:
        assert count == 2 * 12
        deadline = time.monotonic() + 60
        for path, body in in_force(made):
            while made.attempt(path, body) is None:
                assert time.monotonic() < deadline, "the policies are not in force"
                time.sleep(0.2)
        while made.attempt(SETS, unasked_set(made), query="") is None:
            assert time.monotonic() < deadline, "the policies are not in force"
            time.sleep(0.2)
        yield made


def unasked_set(site: Site) -> Manifest:
    """A set of a name that no other has, so that a policy alone can refuse it."""
    return smallest(SET, name=f"x-{secrets.token_hex(3)}", namespace=site.namespace)


def in_force(site: Site) -> Iterator[tuple[str, Manifest]]:
    """Something that each policy refuses, to wait for it."""
    yield "/api/v1/pods", {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    yield "/api/v1/pods", site.pod("models", owner=site.for_admins)
    yield "/apis/apps/v1/deployments", deployment(site.pod("models"))
    yield "/api/v1/secrets", {"metadata": {"name": "x"}}
    yield "/api/v1/serviceaccounts", {"metadata": {"name": "x"}}
    yield f"{RBAC}/roles", {"metadata": {"name": "x"}}
    yield f"{RBAC}/rolebindings", binding("ClusterRole", "cluster-admin", "x", site.namespace)


def test_no_policy_stops_the_pods_of_others_when_its_parameter_is_gone() -> None:
    """Kubernetes looks at parameters before it looks at whose request it is."""
    policies_of_the_chart = of_kind(rendered(), "ValidatingAdmissionPolicy")
    with_parameter = [one["spec"] for one in policies_of_the_chart if "paramKind" in one["spec"]]
    assert [spec["failurePolicy"] for spec in with_parameter] == ["Ignore"] * 3
    bound = of_kind(rendered(), "ValidatingAdmissionPolicyBinding")
    references = [one["spec"]["paramRef"] for one in bound if "paramRef" in one["spec"]]
    assert [reference["parameterNotFoundAction"] for reference in references] == ["Allow"] * 3


@pytest.mark.holds(
    "security.md",
    "What the operator's own user may write, and where; its whole life passes with these policies",
)
@pytest.mark.attack(
    "Whoever took over the operator makes a pod with a strong service account of another namespace"
)
def test_no_pod_has_an_account_that_no_set_names(site: Site) -> None:
    assert site.attempt("/api/v1/pods", site.pod("models")) is None
    for pod, words in (
        (site.pod("other"), "that their ModelReplicaSet names"),
        (site.pod("models", owner=site.for_admins), "that their ModelReplicaSet names"),
        (site.pod("admin", owner=site.for_admins), "may read Secrets"),
        ({**site.pod("default"), "metadata": {"name": "p"}}, "none of its objects owns"),
        (site.pod("default", automountServiceAccountToken=False, hostNetwork=True), "the node's own network"),
    ):
        assert words in str(site.attempt("/api/v1/pods", pod))
    strong = site.attempt("/api/v1/pods", site.pod("ci"), namespace=site.empty)
    assert "may read Secrets" in str(strong)
    for namespace in (site.namespace, site.empty):  # of anybody else nothing is asked
        free = {"metadata": {"name": "p"}, "spec": {**site.pod("ci")["spec"], "hostNetwork": True}}
        assert site.attempt("/api/v1/pods", free, namespace=namespace, as_=site.administrator) is None


@pytest.mark.holds(
    "security.md",
    "What the operator's own user may write, and where; its whole life passes with these policies",
)
@pytest.mark.attack(
    "Whoever took over the operator makes a pod with a strong service account of another namespace"
)
def test_workloads_have_accounts_that_flotilla_made_or_none(site: Site) -> None:
    for account in ("default", "llama-router"):
        assert site.attempt("/apis/apps/v1/deployments", deployment(site.pod(account))) is None, account
    for account in ("models", "admin"):
        refusal = site.attempt("/apis/apps/v1/deployments", deployment(site.pod(account)))
        assert "no service account but one that it made" in str(refusal) or "may read Secrets" in str(refusal)


def test_accounts_that_sets_name_can_be_closed(site: Site) -> None:
    """Then no pod has an account but the listed ones, whatever owner it names."""
    closed = {"operator.bounds.namedAccounts": "false", **site.values}
    with changed(site, "-bounds-pods-ours", closed):
        deadline = time.monotonic() + 60
        while site.attempt("/api/v1/pods", site.pod("models")) is None:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert site.attempt("/api/v1/pods", site.pod("default", automountServiceAccountToken=False)) is None
        assert site.attempt("/api/v1/pods", site.pod(STRONG_BUT_LISTED)) is None


@contextmanager
def changed(site: Site, name: str, values: dict[str, str]) -> Iterator[None]:
    """The policy with this end of its name, as other values make it."""
    for with_values in (values, site.values):
        (policy,) = [
            manifest
            for manifest in rendered(with_values)
            if manifest["kind"] == "ValidatingAdmissionPolicy" and manifest["metadata"]["name"].endswith(name)
        ]
        site.administrator.apply(f"{POLICIES}/{policy['metadata']['name']}", policy)
        if with_values is values:
            yield


@pytest.mark.holds(
    "security.md", "An account that may read Secrets can be listed, and what lost its label is put back"
)
def test_an_account_that_may_read_secrets_can_be_listed(site: Site) -> None:
    assert site.attempt("/api/v1/pods", site.pod(STRONG_BUT_LISTED)) is None
    assert site.attempt("/apis/apps/v1/deployments", deployment(site.pod(STRONG_BUT_LISTED))) is not None


@pytest.mark.holds(
    "security.md",
    "What the operator's own user may write, and where; its whole life passes with these policies",
)
@pytest.mark.attack(
    "Whoever took over the operator creates a ModelReplicaSet, whose pods then have the account that it names"
)
def test_sets_are_created_by_dry_runs_alone(site: Site) -> None:
    mine = smallest(SET, name="mine", namespace=site.namespace)
    assert site.attempt(SETS, mine) is None
    assert "must only ask by dry runs" in str(site.attempt(SETS, mine, query=""))
    path = f"/apis/flotilla.dev/v1alpha1/namespaces/{site.namespace}/modelreplicasets/mine"
    assert not site.administrator.exists(path)


@pytest.mark.holds(
    "security.md",
    "What the operator's own user may write, and where; its whole life passes with these policies",
)
@pytest.mark.attack(
    "Whoever took over the operator reads a token by making a Secret of type service-account-token"
)
def test_secrets_are_opaque_and_owned(site: Site) -> None:
    assert site.attempt("/api/v1/secrets", secret(site, "Opaque")) is None
    annotation = {"kubernetes.io/service-account.name": "admin"}
    token = secret(site, "kubernetes.io/service-account-token", annotations=annotation)
    for wrong in (token, secret(site, "example.com/other"), {"metadata": {"name": "x", "labels": OURS}}):
        assert "only create Secrets, of type Opaque" in str(site.attempt("/api/v1/secrets", wrong))


@pytest.mark.holds(
    "security.md",
    "What the operator's own user may write, and where; its whole life passes with these policies",
)
@pytest.mark.attack("Whoever took over the operator binds itself a role")
def test_no_role_is_made_or_bound_but_those_of_routers_and_gateways(site: Site) -> None:
    roles, bindings = f"{RBAC}/roles", f"{RBAC}/rolebindings"
    pods = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    router = {"metadata": site.owned(site.set, name="llama-router"), "rules": [pods]}
    assert site.attempt(roles, router) is None
    for wrong in (
        {**router, "rules": [{**pods, "resources": ["secrets"]}]},
        {**router, "rules": [{**pods, "verbs": ["*"]}]},
        {**router, "rules": [pods, {**pods, "resources": ["pods/exec"], "verbs": ["get"]}]},
        {**router, "metadata": site.owned(site.set, name="mine")},
    ):
        assert "no role but that of routers" in str(site.attempt(roles, wrong))
    namespace, operator = site.namespace, f"{RELEASE}-operator"
    assert site.attempt(bindings, binding("Role", "llama-router", "llama-router", namespace)) is None
    for wrong in (
        binding("ClusterRole", "cluster-admin", "llama-router", namespace),
        binding("Role", "admin", "llama-router", namespace),
        binding("Role", "llama-router", operator, NAMESPACE, name="llama-router"),
        binding("ClusterRole", GATEWAYS, "a-gateway", namespace),
    ):
        assert "must bind" in str(site.attempt(bindings, wrong))
    whole = {"metadata": {"name": "x", "labels": OURS}, "rules": [{**pods, "resources": ["*"]}]}
    assert "no ClusterRole" in str(site.attempt(f"{RBAC}/clusterroles", whole, namespace="-"))


@pytest.mark.holds(
    "security.md",
    "What the operator's own user may write, and where; its whole life passes with these policies",
)
@pytest.mark.attack("Whoever took over the operator binds itself a role")
def test_in_the_cluster_the_gateways_of_the_named_fleet_alone_are_bound(site: Site) -> None:
    folder, namespace = f"{RBAC}/clusterrolebindings", site.namespace
    name = f"{GATEWAYS}:{namespace}:a"
    right = binding("ClusterRole", GATEWAYS, "a-gateway", namespace, name=name)
    assert site.attempt(folder, right, namespace="-") is None
    another = binding("ClusterRole", GATEWAYS, "b-gateway", namespace, name=name)
    for wrong in (
        another,
        binding("ClusterRole", GATEWAYS, "a-gateway", site.empty, name=name),
        binding("ClusterRole", GATEWAYS, "a-gateway", namespace, name="a"),
        binding("ClusterRole", "cluster-admin", "a-gateway", namespace, name=name),
        {**right, "subjects": right["subjects"] + another["subjects"]},
        {**right, "subjects": []},
    ):
        assert "must bind" in str(site.attempt(folder, wrong, namespace="-"))
    theirs = binding("ClusterRole", "view", "a-gateway", namespace, name=f"{namespace}-theirs")
    for made in (right, theirs):
        site.administrator.create(folder, made)
    site.attacker.delete(f"{folder}/{name}")
    with pytest.raises(ApiError, match="delete no other binding"):
        site.attacker.delete(f"{folder}/{namespace}-theirs")
    site.administrator.delete(f"{folder}/{namespace}-theirs")


@pytest.mark.holds(
    "security.md",
    "What the operator's own user may write, and where; its whole life passes with these policies",
)
@pytest.mark.attack("Whoever took over the operator writes in kube-system, or beside the operator itself")
@pytest.mark.parametrize("closed", ["kube-system", "kube-public", NAMESPACE])
def test_closed_namespaces_are_left_alone(closed: str, site: Site) -> None:
    for path, body in (
        ("/api/v1/configmaps", {"metadata": {"name": "x", "labels": OURS}}),
        ("/api/v1/pods", site.pod("default", automountServiceAccountToken=False)),
        ("/api/v1/secrets", secret(site, "Opaque")),
    ):
        assert "must write nothing in the namespaces" in str(site.attempt(path, body, namespace=closed))
    lease = {"metadata": {"name": "flotilla-operator"}}
    assert site.attempt("/apis/coordination.k8s.io/v1/leases", lease, namespace=NAMESPACE) is None


@pytest.mark.holds(
    "security.md",
    "What the operator's own user may write, and where; its whole life passes with these policies",
)
@pytest.mark.attack("Whoever took over the operator changes or deletes what is not Flotilla's")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/api/v1/{place}/configmaps", {}, id="a ConfigMap"),
        pytest.param("/api/v1/{place}/services", {"spec": {"ports": [{"port": 80}]}}, id="a Service"),
        pytest.param("/api/v1/{place}/serviceaccounts", {}, id="a service account"),
        pytest.param("/api/v1/{place}/secrets", {}, id="a Secret"),
    ],
)
def test_what_is_not_flotillas_stays(path: str, body: Manifest, site: Site) -> None:
    folder = path.format(place=f"namespaces/{site.namespace}")
    theirs = f"{folder}/theirs"
    site.administrator.create(folder, {**body, "metadata": {"name": "theirs"}})
    with pytest.raises(ApiError, match="Flotilla's operator must"):
        site.attacker.merge(theirs, {"metadata": {"labels": OURS}})
    with pytest.raises(ApiError, match="Flotilla's operator must"):
        site.attacker.delete(theirs)
    assert site.administrator.exists(theirs)


@pytest.mark.holds(
    "security.md", "An account that may read Secrets can be listed, and what lost its label is put back"
)
def test_what_lost_its_label_is_still_flotillas(site: Site) -> None:
    """The operator puts back what somebody took away from its own objects."""
    folder = f"/api/v1/namespaces/{site.namespace}/configmaps"
    for name, metadata in (
        ("labelled", {"labels": OURS}),
        ("referred", {"ownerReferences": site.owned(site.set)["ownerReferences"]}),
    ):
        site.administrator.create(folder, {"metadata": {**metadata, "name": name}})
        site.attacker.merge(f"{folder}/{name}", {"data": {"a": "b"}})
        site.attacker.delete(f"{folder}/{name}")


def test_a_service_account_without_its_label_is_mended(site: Site) -> None:
    """Controllers of others write `secrets` into every account; these stay, and no more come."""
    folder = f"/api/v1/namespaces/{site.namespace}/serviceaccounts"
    metadata = {"name": "mended", "ownerReferences": site.owned(site.set)["ownerReferences"]}
    theirs = [{"name": "mended-dockercfg"}]
    site.administrator.create(folder, {"metadata": metadata, "secrets": theirs})
    site.attacker.merge(f"{folder}/mended", {"metadata": {"labels": OURS}})
    assert site.administrator.get(f"{folder}/mended")["secrets"] == theirs
    with pytest.raises(ApiError, match="must only write service accounts"):
        site.attacker.merge(f"{folder}/mended", {"secrets": [*theirs, {"name": "callers"}]})


@pytest.mark.holds(
    "security.md",
    "What the operator's own user may write, and where; its whole life passes with these policies",
)
@pytest.mark.attack(
    "Whoever took over the operator makes a privileged pod, or one among the node's processes"
)
@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"hostNetwork": True}, id="the node's network"),
        pytest.param({"hostPID": True}, id="the node's processes"),
        pytest.param({"hostIPC": True}, id="the node's memory"),
        *(
            pytest.param(
                {kind: [{"name": name, "image": "i", "securityContext": context}]},
                id=f"{name} {next(iter(context))}",
            )
            for kind, name in (("containers", "c"), ("initContainers", "init"))
            for context in ({"privileged": True}, {"capabilities": {"add": ["SYS_ADMIN"]}})
        ),
    ],
)
def test_pods_have_no_privileges(spec: Manifest, site: Site) -> None:
    pod = site.pod("default", **spec)
    for path, body in (("/api/v1/pods", pod), ("/apis/apps/v1/deployments", deployment(pod))):
        assert "Flotilla's operator must make no" in str(site.attempt(path, body))
