"""The newest Kubernetes that is supported: our kinds, what the operator writes, and the chart."""

from collections.abc import Iterator

import pytest

from flotilla_operator.api.generate import ROOT
from flotilla_operator.api.kinds import KINDS
from local_cluster import definitions
from local_cluster.api_client import ApiClient, Manifest, documents
from local_cluster.control_plane import ADMINISTRATORS, ControlPlane, Options
from local_cluster.errors import ApiError
from local_cluster.pytest_plugin import create_namespace
from tests.support.chart import CHART, IMAGES, NAMESPACE, RELEASE, helm, setting
from tests.support.kinds import kinds_operator
from tests.support.restricted import attempt
from tests.support.waiting import eventually

EXAMPLES = sorted([*(ROOT / "examples").glob("*.yaml"), *(ROOT / "examples" / "models").glob("*.yaml")])
PLACES = {kind.name: ("/apis/flotilla.dev/v1alpha1", kind.plural) for kind in KINDS}
POD = {"containers": [{"name": "c", "image": "i"}]}
PLACES["ConfigMap"] = ("/api/v1", "configmaps")
# Engine pods are not among it: they would need a node.
MADE = {
    *("ConfigMap", "Deployment", "NetworkPolicy", "PersistentVolumeClaim", "PodDisruptionBudget", "Role"),
    *("RoleBinding", "Secret", "Service", "ServiceAccount", "StatefulSet"),
}

pytestmark = [
    pytest.mark.apiserver,
    pytest.mark.rare,  # to build this API server takes minutes
    pytest.mark.xdist_group("newest"),
    pytest.mark.timeout(1800),  # where nobody ran `make caches`, it builds this API server first
]


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    options = Options(newest=True, definitions=definitions.OURS)
    with ControlPlane(tmp_path_factory.mktemp("newest-plane"), options) as plane:
        yield plane


@pytest.mark.holds(
    "local-cluster.md",
    "A control plane can restart, hang, be somebody else, tell what was asked, and be the newest Kubernetes",
)
def test_it_is_the_newest(newest: ControlPlane) -> None:
    assert newest.client.get("/version")["gitVersion"].startswith("v1.37.")


@pytest.mark.holds("README.md", "The definitions and examples are taken by the newest supported Kubernetes")
def test_it_takes_definitions_and_examples(newest: ControlPlane) -> None:
    assert len(EXAMPLES) >= len(KINDS)
    for path in EXAMPLES:
        namespace = create_namespace(newest)
        for manifest in documents(path.read_text()):
            root, plural = PLACES[manifest["kind"]]
            folder = f"{root}/namespaces/{namespace}/{plural}"
            assert newest.client.create(f"{folder}?fieldValidation=Strict", manifest)["metadata"]["uid"]


@pytest.mark.holds("README.md", "The operator and the chart work on 1.34, and with the API server of 1.37")
def test_the_operator_makes_there_what_it_makes_of_an_example(
    newest: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> None:
    namespace = create_namespace(newest)
    newest.kubectl("apply", f"--filename={ROOT}/examples/agentfleet.yaml", f"--namespace={namespace}")
    folder = tmp_path_factory.mktemp("operator")
    with kinds_operator(newest, folder, *(kind.name for kind in KINDS)) as operator:
        eventually(lambda: made(newest, namespace) >= MADE, what=f"all of {sorted(MADE)}")
        assert operator.failures() == []


def made(plane: ControlPlane, namespace: str) -> set[str]:
    """The kinds of which the operator made something."""
    kinds = ",".join(sorted(kind.lower() for kind in MADE))
    selector = "--selector=app.kubernetes.io/managed-by=flotilla"
    shown = plane.kubectl(
        "get", kinds, selector, "--output=jsonpath={.items[*].kind}", f"--namespace={namespace}"
    )
    return set(shown.split())


@pytest.mark.holds("README.md", "The operator and the chart work on 1.34, and with the API server of 1.37")
def test_the_chart_installs_there(newest: ControlPlane) -> None:
    place = (f"--namespace={NAMESPACE}", f"--kubeconfig={newest.kubeconfig}")
    values = setting({**IMAGES, "crds.install": "false"})
    helm("install", RELEASE, str(CHART), *place, "--create-namespace", *values)
    assert RELEASE in helm("list", "--short", *place).split()


@pytest.mark.holds("README.md", "The operator and the chart work on 1.34, and with the API server of 1.37")
def test_the_charts_policies_hold_there(newest: ControlPlane) -> None:
    """Of the operator's own user, and of users of the kinds."""
    place = (f"--namespace={NAMESPACE}", f"--kubeconfig={newest.kubeconfig}")
    values = setting({**IMAGES, "crds.install": "false", "restrict.enabled": "true"})
    helm("upgrade", "--install", RELEASE, str(CHART), *place, "--create-namespace", *values)
    namespace = create_namespace(newest)
    account = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-operator"
    operator = newest.client_for(newest.user(account, groups=[ADMINISTRATORS]))
    core = f"/api/v1/namespaces/{namespace}"
    secret, pod = {"metadata": {"name": "x"}}, {"metadata": {"name": "x"}, "spec": POD}
    eventually(lambda: "only create Secrets, of type Opaque" in refusal(operator, f"{core}/secrets", secret))
    eventually(lambda: "none of its objects owns" in refusal(operator, f"{core}/pods", pod))
    variables = {"engine": {"env": [{"name": "LD_PRELOAD", "value": "x"}]}}
    eventually(lambda: "envNames" in str(attempt(newest.client, namespace, "ModelReplicaSet", variables)))


def refusal(client: ApiClient, path: str, manifest: Manifest) -> str:
    try:
        client.create(f"{path}?dryRun=All", manifest)
    except ApiError as error:
        return error.message
    return ""
