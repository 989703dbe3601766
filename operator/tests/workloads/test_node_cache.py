"""A folder of the node as model cache: who mounts which part of it, who is root, and what they are told."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from flotilla_operator.objects.owners import Owner
from flotilla_operator.replicas.group import GroupIdentity
from flotilla_operator.workloads.engine_pod import engine_pod
from flotilla_operator.workloads.node_cache import own_folder, plain_path
from flotilla_runtime.models.node_folder import main
from tests.builders.model_replica_set import IMAGES, OWNER, spec_of

NODE = {"mode": "Node", "path": "/srv/models"}
MAKER, FACTS, FETCHER, ENGINE = "make-model-folder", "read-model-facts", "fetch-model", "engine"
USERS = [
    {"name": "PYTHONPATH", "value": "/models"},
    {"name": "LD_PRELOAD", "value": "/models/x.so"},
    {"name": "HF_HOME", "value": "/models"},
    {"name": "HF_TOKEN_PATH", "value": "/etc/passwd"},
    {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
    {"name": "no_proxy", "value": ".svc"},
    {"name": "SSL_CERT_FILE", "value": "/etc/ssl/own.pem"},
    {"name": "HF_ENDPOINT", "value": "https://hub.example"},
]


def pod_of(owner: Owner = OWNER, **spec: Any) -> dict[str, Any]:
    identity = GroupIdentity(name="llama-abcde", server_id=1, revision="r")
    parsed = spec_of(**{"modelCache": NODE, **spec})
    pod: dict[str, Any] = engine_pod(owner, parsed, identity, IMAGES)["spec"]
    return pod


def containers(pod: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in (*pod["initContainers"], *pod["containers"])}


def mounts_of_models(container: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [mount for mount in container["volumeMounts"] if mount["name"] == "models"]


def variables(container: Mapping[str, Any]) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container.get("env", ())}


@pytest.mark.holds(
    "engine.md", "Sets share files within a namespace and a hub, and see nothing else of the node's folder"
)
def test_all_but_the_maker_mount_their_own_part_alone() -> None:
    pod = pod_of()
    found = containers(pod)
    assert list(found) == [MAKER, FACTS, FETCHER, ENGINE], "the folder is there before it is mounted"
    part = own_folder(OWNER.namespace, spec_of(modelCache=NODE))
    mounted = {"name": "models", "mountPath": "/models", "subPath": part}
    assert mounts_of_models(found[FACTS]) == mounts_of_models(found[FETCHER]) == [mounted]
    assert mounts_of_models(found[ENGINE]) == [{**mounted, "readOnly": True}]
    assert found[MAKER]["volumeMounts"] == [{"name": "models", "mountPath": "/node-models"}]
    (volume,) = (one for one in pod["volumes"] if one["name"] == "models")
    assert volume["hostPath"] == {"path": "/srv/models", "type": "DirectoryOrCreate"}


@pytest.mark.holds(
    "security.md", "The container that is root has nothing of the user's and the capability CHOWN alone"
)
def test_the_maker_has_nothing_of_the_users() -> None:
    env = [*USERS, {"name": "HF_TOKEN", "value": "mine"}]
    mounts = [{"name": "x", "mountPath": "/x"}]
    pod = {"volumes": [{"name": "x", "emptyDir": {}}], "volumeMounts": mounts}
    maker = containers(pod_of(engine={"env": env, "image": "mine"}, pod=pod))[MAKER]
    assert "env" not in maker
    assert "envFrom" not in maker
    assert maker["image"] == IMAGES.runtime
    assert maker["args"][0] == "flotilla_runtime.models.node_folder"
    assert [mount["name"] for mount in maker["volumeMounts"]] == ["models"]


def test_what_the_maker_is_told_is_what_it_takes(tmp_path: Any) -> None:
    module, *arguments = containers(pod_of())[MAKER]["args"]
    assert module == "flotilla_runtime.models.node_folder"
    told = [str(tmp_path) if one == "/node-models" else one for one in arguments]
    own_user = str(tmp_path.stat().st_uid)
    told = [own_user if one == "65532" else one for one in told]
    assert main([*told, "--termination-log", str(tmp_path / "log")]) == 0
    assert (tmp_path / own_folder(OWNER.namespace, spec_of(modelCache=NODE))).is_dir()


@pytest.mark.holds(
    "engine.md",
    "In a folder of the node the fetcher is not root and gets of `engine.env` only what leads to the hub",
)
@pytest.mark.holds("security.md", "No variable brings code to the container that has the hub's token")
@pytest.mark.parametrize("name", [FACTS, FETCHER])
def test_the_fetcher_gets_what_leads_to_the_hub_and_no_other_variable(name: str) -> None:
    pod = pod_of(engine={"env": USERS}, model={"tokenSecretRef": {"name": "hf"}})
    assert variables(containers(pod)[name]) == {
        "HTTPS_PROXY": "http://proxy:3128",
        "no_proxy": ".svc",
        "SSL_CERT_FILE": "/etc/ssl/own.pem",
        "HF_ENDPOINT": "https://hub.example",
        "HF_TOKEN": {"secretKeyRef": {"name": "hf", "key": "token"}},
    }


@pytest.mark.holds("security.md", "No variable brings code to the container that has the hub's token")
@pytest.mark.parametrize(
    "cache",
    [
        pytest.param({"mode": "None"}, id="a folder of the pod"),
        pytest.param({"mode": "Claim", "claimName": "models"}, id="a claim"),
    ],
)
def test_elsewhere_the_fetcher_gets_the_hub_clients_settings_too_and_nothing_that_brings_code(
    cache: dict[str, str],
) -> None:
    found = containers(pod_of(modelCache=cache, engine={"env": USERS}))
    assert list(found) == [FACTS, FETCHER, ENGINE]
    for name in (FACTS, FETCHER):
        got = {"HTTPS_PROXY", "no_proxy", "SSL_CERT_FILE", "HF_ENDPOINT", "HF_HOME", "HF_TOKEN_PATH"}
        assert set(variables(found[name])) == got
    assert {one["name"] for one in USERS} <= set(variables(found[ENGINE]))
    assert mounts_of_models(found[FETCHER]) == [{"name": "models", "mountPath": "/models"}]


def test_nothing_is_root_where_nothing_is_fetched() -> None:
    pod = pod_of(model={"source": "pvc://weights/llama"})
    assert list(containers(pod)) == ["verify-model", ENGINE]
    assert [volume for volume in pod["volumes"] if "hostPath" in volume] == []


def folder(namespace: str = "team", env: Sequence[Mapping[str, Any]] = ()) -> str:
    return own_folder(namespace, spec_of(engine={"env": list(env)}))


def hub(address: str) -> list[dict[str, str]]:
    return [{"name": "HF_ENDPOINT", "value": address}]


def read_from(secret: str) -> list[dict[str, Any]]:
    return [{"name": "HF_ENDPOINT", "valueFrom": {"secretKeyRef": {"name": secret, "key": "address"}}}]


@pytest.mark.holds(
    "engine.md", "Sets share files within a namespace and a hub, and see nothing else of the node's folder"
)
@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param(folder(), folder(), True, id="one namespace and hub"),
        pytest.param(folder(), folder(env=hub("https://huggingface.co/")), True, id="the hub by its name"),
        pytest.param(folder(), folder("other"), False, id="another namespace"),
        pytest.param(folder(), folder(env=hub("https://hub.example")), False, id="another hub"),
        pytest.param(
            folder(env=read_from("a")), folder(env=read_from("a")), True, id="an address in one secret"
        ),
        pytest.param(folder(env=read_from("a")), folder(env=read_from("b")), False, id="in another secret"),
        pytest.param(folder("a"), folder("a-b"), False, id="a namespace that begins like another"),
    ],
)
def test_sets_share_a_folder_within_a_namespace_and_a_hub(one: str, other: str, same: bool) -> None:
    assert (one == other) is same
    for path in (one, other):
        namespace, hash_of_hub = path.split("/")
        assert namespace in ("team", "other", "a", "a-b")
        assert hash_of_hub.isalnum()
        assert len(hash_of_hub) == 16


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        pytest.param("/srv/models", "/srv/models", id="plain"),
        pytest.param("/srv/models/", "/srv/models", id="a slash at the end"),
        pytest.param("//srv/./models", "/srv/models", id="slashes and dots"),
        pytest.param("/srv/..models", "/srv/..models", id="dots in a name"),
        pytest.param("/srv/models/..", None, id="upwards"),
        pytest.param("/../srv", None, id="upwards from the root"),
        pytest.param("/", None, id="everything"),
        pytest.param("//.", None, id="everything in other words"),
        pytest.param("srv/models", None, id="not absolute"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_a_plain_path(path: str, plain: str | None) -> None:
    assert plain_path(path) == plain
