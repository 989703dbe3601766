"""The configuration file: what is wrong is named, and what the chart writes is read."""

import json
from pathlib import Path
from typing import Any

import pytest

from flotilla_operator.controllers.config import parse_config, read_config
from flotilla_operator.controllers.errors import ConfigError
from flotilla_operator.controllers.images import images_of
from leaks.planted import planted

HUSH = planted("hush")

IMAGES = {name: f"example.org/{name}:1" for name in ("runtime", "haproxy", "redis", "milvus", "engine")}
NODE_PATHS = "modelCache.nodePaths"


def test_the_defaults_are_those_of_controller_runtime() -> None:
    leader = parse_config({"images": IMAGES}).leader
    assert (leader.lease_duration_seconds, leader.renew_deadline_seconds, leader.retry_period_seconds) == (
        15,
        10,
        2,
    )


def test_keys_are_camel_case_as_in_the_chart() -> None:
    config = parse_config(
        {"images": IMAGES, "watchNamespaces": ["a"], "labels": {"gpuProducts": ["x"]}, "logLevel": "debug"}
    )
    assert (config.watch_namespaces, config.labels.gpu_products, config.log_level) == (
        ("a",),
        ("x",),
        "debug",
    )


@pytest.mark.holds(
    "install.md", "`modelCache.nodePaths` lists the folders of nodes that sets may name; the default is none"
)
def test_folders_of_nodes_are_listed_and_there_is_none_by_default() -> None:
    assert parse_config({"images": IMAGES}).model_cache.node_paths == ()
    listed = {"nodePaths": ["/srv/models/", "/srv/models-too"]}
    config = parse_config({"images": IMAGES, "modelCache": listed})
    assert config.model_cache.node_paths == ("/srv/models", "/srv/models-too")


@pytest.mark.holds("placement.md", "The topology levels and the interconnect are configuration of the chart")
def test_the_levels_and_the_interconnect_are_configuration() -> None:
    labels = {"topologyLevels": ["row", "kubernetes.io/hostname"], "interconnect": ""}
    config = parse_config({"images": IMAGES, "labels": labels})
    assert config.labels.topology_levels == ("row", "kubernetes.io/hostname")
    assert config.labels.interconnect == ""


@pytest.mark.holds("install.md", "No message quotes a proxy's password")
@pytest.mark.holds(
    "install.md", "A path of the list is absolute, below `/`, without `..` and not inside another one"
)
@pytest.mark.holds(
    "install.md",
    "The chart's tolerations reach the operator as they stand; one that the API server would "
    "refuse is named, by the schema and by the operator",
)
@pytest.mark.parametrize(
    ("document", "field"),
    [
        pytest.param({}, "images", id="no images"),
        pytest.param({"images": {**IMAGES, "redis": ""}}, "images.redis", id="an empty image"),
        pytest.param({"images": IMAGES, "watchNamespace": []}, "watchNamespace", id="a key nobody knows"),
        pytest.param(
            {"images": IMAGES, "loop": {"workers": "many"}}, "loop.workers", id="a word for a number"
        ),
        pytest.param({"images": IMAGES, "loop": {"workers": 0}}, "loop.workers", id="no workers"),
        pytest.param({"images": IMAGES, "imagePullPolicy": "Maybe"}, "imagePullPolicy", id="no such policy"),
        pytest.param(
            {"images": IMAGES, "labels": {"topologyLevels": ["zone", "zone"]}},
            "labels.topologyLevels",
            id="a level twice",
        ),
        *(
            pytest.param(
                {"images": IMAGES, "modelCache": {"nodePaths": paths}}, "modelCache.nodePaths", id=name
            )
            for name, paths in {
                "a node's whole disk": ["/"],
                "a node's folder that leads upwards": ["/srv/../etc"],
                "a node's folder that is not absolute": ["models"],
                "a node's folder in another": ["/srv/models", "/srv/models/team"],
            }.items()
        ),
        pytest.param(
            {"images": IMAGES, "placement": {"bindTimeoutSeconds": 0}},
            "placement.bindTimeoutSeconds",
            id="no time to bind",
        ),
        *(
            pytest.param(
                {"images": IMAGES, "placement": {"tolerations": [{"key": "a"}, wrong]}},
                f"placement.tolerations.1{field}",
                id=name,
            )
            for name, wrong, field in (
                ("a toleration of an effect that does not exist", {"key": "k", "effect": "No"}, ".effect"),
                ("a misspelt field of a toleration", {"key": "k", "efect": "NoSchedule"}, ".efect"),
                ("a toleration of every key by its value", {"value": "gpu"}, ""),
                ("a value that is not looked at", {"key": "k", "operator": "Exists", "value": "v"}, ""),
                ("seconds without NoExecute", {"key": "k", "tolerationSeconds": 1}, ""),
            )
        ),
        *(
            pytest.param({"images": IMAGES, "proxy": wrong}, f"proxy.{field}", id=name)
            for name, wrong, field in (
                ("a proxy without a scheme", {"httpProxy": f"u:{HUSH}@proxy:3128"}, "httpProxy"),
                ("a proxy of another scheme", {"httpsProxy": f"socks5://u:{HUSH}@proxy"}, "httpsProxy"),
                ("a proxy without a host", {"httpsProxy": "http://"}, "httpsProxy"),
                ("a misspelt proxy", {"http": f"http://u:{HUSH}@proxy"}, "http"),
            )
        ),
        pytest.param([], "(document)", id="not an object"),
    ],
)
def test_a_wrong_field_is_named(document: Any, field: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(document)
    assert raised.value.field == field
    assert field in str(raised.value)
    assert HUSH not in str(raised.value)


@pytest.mark.holds(
    "install.md",
    "The chart's tolerations reach the operator as they stand; one that the API server would "
    "refuse is named, by the schema and by the operator",
)
@pytest.mark.parametrize(
    "toleration",
    [
        pytest.param({"key": "sku", "value": "gpu", "effect": "NoSchedule"}, id="a value"),
        pytest.param({"key": "sku"}, id="the empty value"),
        pytest.param({"operator": "Exists"}, id="every taint"),
        pytest.param({"key": "a", "effect": "NoExecute", "tolerationSeconds": 60}, id="for a minute"),
    ],
)
def test_a_toleration_is_taken_as_it_stands(toleration: dict[str, Any]) -> None:
    config = parse_config({"images": IMAGES, "placement": {"tolerations": [toleration]}})
    assert images_of(config).accelerator_tolerations == (toleration,)


def test_a_renewal_deadline_past_the_lease_is_refused() -> None:
    leader = {"leaseDurationSeconds": 10, "renewDeadlineSeconds": 10}
    with pytest.raises(ConfigError, match="renewDeadlineSeconds must be below leaseDurationSeconds"):
        parse_config({"images": IMAGES, "leader": leader})


def test_a_file_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json: the configuration cannot be read: No such file"):
        read_config(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        read_config(tmp_path / "config.json")
    (tmp_path / "config.json").write_text(json.dumps({"images": IMAGES}))
    assert read_config(tmp_path / "config.json").images.redis == "example.org/redis:1"
