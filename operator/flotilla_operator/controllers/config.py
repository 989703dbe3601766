"""The operator's configuration: one JSON file that the chart writes, read once at the start.

Keys are camelCase as in the chart's values. The operator does not start with an unknown key, a missing image
or a wrong type; the message names the field. A wrong guess would affect every namespace at once.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from flotilla_operator.api.parts import TaintEffect, Toleration, TolerationOperator
from flotilla_operator.controllers.errors import ConfigError
from flotilla_operator.placement.groups import RACK, ZONE
from flotilla_operator.placement.topology import HOSTNAME
from flotilla_operator.workloads.node_cache import plain_path
from flotilla_runtime.contract.failure_texts import what_failed

Seconds = Annotated[float, Field(gt=0)]
Image = Annotated[str, Field(min_length=1)]
Label = Annotated[str, Field(min_length=1)]
PROXY = re.compile(r"https?://[^\s/]\S*")


class Section(BaseModel):
    """A part of the configuration: camelCase keys, unknown keys refused, frozen after reading."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, extra="forbid", frozen=True
    )


class Images(Section):
    """The images of the pods that the operator makes, each with its digest where it has one.

    `engine_cpu` is for replicas without an accelerator; when it is not set, they get `engine`. `milvus` is
    empty where the chart names none: only indexes with Milvus Lite need it.
    """

    runtime: Image
    haproxy: Image
    redis: Image
    milvus: str = ""
    engine: Image
    engine_cpu: Annotated[Image | None, Field(alias="engineCPU")] = None


class Labels(Section):
    """The node labels that tell a node's GPU product, its place in the topology and its interconnect.

    `topology_levels` go from wide to narrow. `interconnect` names the domain of a fast interconnect between
    nodes; it is empty where there is none.
    """

    gpu_products: tuple[str, ...] = (
        "nvidia.com/gpu.product",
        "amd.com/gpu.product-name",
        "cloud.google.com/gke-accelerator",
    )
    topology_levels: Annotated[tuple[Label, ...], Field(min_length=1)] = (ZONE, RACK, HOSTNAME)
    interconnect: str = "nvidia.com/gpu.clique"

    @field_validator("topology_levels")
    @classmethod
    def _each_level_once(cls, levels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(levels)) != len(levels):
            raise ValueError("topologyLevels must name each label once, from wide to narrow")
        return levels


class AcceleratorToleration(Toleration):
    """A toleration of core/v1 that the API server accepts: it would refuse every pod with another one."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="after")
    def _is_one_of_a_pod(self) -> Self:
        exists = self.operator is TolerationOperator.EXISTS
        if not self.key and not exists:
            raise ValueError("key is required unless operator is Exists")
        if self.value and exists:
            raise ValueError("value must be absent with operator Exists")
        if self.toleration_seconds is not None and self.effect is not TaintEffect.NO_EXECUTE:
            raise ValueError("tolerationSeconds needs effect NoExecute")
        return self


class Placement(Section):
    """`aging_seconds`: how long a group waits before nodes are kept free for it. `bind_timeout_seconds`: how
    long the scheduler may take to bind pods that are pinned to their nodes. `tolerations`: which taints the
    pods of sets with an accelerator tolerate beside their own.
    """

    aging_seconds: Seconds = 600
    bind_timeout_seconds: Seconds = 30
    tolerations: tuple[AcceleratorToleration, ...] = ()


class ModelCache(Section):
    """`node_paths`: the folders of nodes that `spec.modelCache.path` may name; with none, mode Node is off.

    None may be inside another one: what is a namespace's folder in the one would be the whole of the other.
    """

    node_paths: tuple[str, ...] = ()

    @field_validator("node_paths")
    @classmethod
    def _plain_and_apart(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        plain = []
        for path in paths:
            if (one := plain_path(path)) is None:
                raise ValueError(
                    f"nodePaths: {path!r} is not the absolute path of a folder below /, without .."
                )
            plain.append(one)
        for inner in plain:
            if any(inner.startswith(f"{outer}/") for outer in plain):
                raise ValueError(f"nodePaths: {inner} is inside another one of them")
        return tuple(plain)


class Proxy(Section):
    """The proxies for addresses outside of the cluster, by scheme; `no_proxy` lists hosts without one.

    They may contain a password, so no message quotes them.
    """

    http_proxy: Annotated[str, Field(max_length=2048)] = ""
    https_proxy: Annotated[str, Field(max_length=2048)] = ""
    no_proxy: Annotated[str, Field(max_length=8192)] = ""

    @field_validator("http_proxy", "https_proxy")
    @classmethod
    def _is_an_address(cls, named: str) -> str:
        if named and not PROXY.fullmatch(named):
            raise ValueError("must begin with http:// or https:// and name a host")
        return named


class Leader(Section):
    """The leader's Lease; the default times are those of controller-runtime."""

    lease_name: str = "flotilla-operator"
    lease_duration_seconds: Annotated[int, Field(gt=1)] = 15
    renew_deadline_seconds: Seconds = 10
    retry_period_seconds: Seconds = 2

    @model_validator(mode="after")
    def _stops_before_others_begin(self) -> Self:
        """A leader that cannot renew its lease must stop before another process may take it."""
        if self.renew_deadline_seconds >= self.lease_duration_seconds:
            raise ValueError("renewDeadlineSeconds must be below leaseDurationSeconds")
        return self


class Loop(Section):
    """How the reconcile loop runs."""

    workers: Annotated[int, Field(ge=1, le=256)] = 16
    sweep_interval_seconds: Seconds = 300
    backoff_base_seconds: Seconds = 1
    backoff_limit_seconds: Seconds = 300
    status_interval_seconds: Seconds = 10
    watch_silence_seconds: Seconds = 70


class Scraping(Section):
    """How many pods are scraped at the same time, and how long one may take to answer."""

    concurrency: Annotated[int, Field(ge=1, le=1024)] = 64
    timeout_seconds: Seconds = 3


class Monitoring(Section):
    """The peers (networking.k8s.io/v1) that may scrape metrics of all pods. Without any, everybody may."""

    peers: tuple[dict[str, Any], ...] = ()


class Restrict(Section):
    """Whether a Secret must say where its values may be sent, and a Secret or a claim who may use it."""

    enabled: bool = False


class GatewaySettings(Section):
    """`cluster_role`: what gateways of mode Kubernetes may ask of the API server; the only role that the
    operator may bind. `accept_cluster_tokens`: whether they take tokens of its own audience too.
    """

    cluster_role: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[^:/%]+$")] = (
        "flotilla-gateway"
    )
    accept_cluster_tokens: bool = False


class OperatorConfig(Section):
    """The whole configuration of the operator."""

    images: Images
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    watch_namespaces: tuple[str, ...] = ()
    labels: Labels = Labels()
    placement: Placement = Placement()
    model_cache: ModelCache = ModelCache()
    proxy: Proxy = Proxy()
    leader: Leader = Leader()
    loop: Loop = Loop()
    scraping: Scraping = Scraping()
    monitoring: Monitoring = Monitoring()
    restrict: Restrict = Restrict()
    gateway: GatewaySettings = GatewaySettings()
    placeholder_priority_class: Annotated[str, Field(min_length=1)] = "flotilla-placeholder"
    health_port: Annotated[int, Field(ge=0, le=65535)] = 8081
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 9090
    log_level: Literal["debug", "info", "warning", "error"] = "info"


def parse_config(document: Any) -> OperatorConfig:
    """The configuration in a JSON document, or `ConfigError` naming the first wrong field."""
    try:
        return OperatorConfig.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ConfigError(
            field=".".join(str(part) for part in first["loc"]) or "(document)",
            problem=first["msg"],
            fix="correct it in the values of the chart",
        ) from None


def read_config(path: Path) -> OperatorConfig:
    """The configuration in a file."""
    try:
        return parse_config(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(
            field=str(path),
            problem=f"the configuration cannot be read: {error.strerror or error}",
            fix="mount the operator's ConfigMap there",
        ) from None
    except json.JSONDecodeError as error:
        raise ConfigError(
            field=str(path),
            problem=f"the configuration is not JSON: {what_failed(error)}",
            fix="use the file that the chart writes",
        ) from None
