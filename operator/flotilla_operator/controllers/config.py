"""The operator's configuration: one JSON file that the chart writes, read once at the start.

Keys are camelCase as in the chart's values. An unknown key, a missing image or a wrong type ends the start
with a message that names the field, because an operator that guesses does harm to every namespace at once.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from flotilla_operator.controllers.errors import ConfigError
from flotilla_operator.placement.groups import RACK, ZONE
from flotilla_operator.placement.topology import HOSTNAME

Seconds = Annotated[float, Field(gt=0)]
Image = Annotated[str, Field(min_length=1)]
Label = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """camelCase keys, nothing unknown, nothing changed after reading."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, extra="forbid", frozen=True
    )


class Images(Section):
    """The images of the pods we make, each with its digest where there is one.

    `engine_cpu` is for replicas without an accelerator; without it they get `engine`.
    """

    runtime: Image
    haproxy: Image
    redis: Image
    milvus: Image
    engine: Image
    engine_cpu: Annotated[Image | None, Field(alias="engineCPU")] = None


class Labels(Section):
    """The node labels that say what a node is, and where: levels from wide to narrow, and the domain of a
    fast interconnect, empty where there is none.
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
        """A level twice would be wider than itself."""
        if len(set(levels)) != len(levels):
            raise ValueError("topologyLevels must name each label once, from wide to narrow")
        return levels


class Placement(Section):
    """After how long nodes are kept for a group that waits, and how long the scheduler gets to bind pods that
    are pinned to their nodes.
    """

    aging_seconds: Seconds = 600
    bind_timeout_seconds: Seconds = 30


class Leader(Section):
    """The Lease of the leader; the defaults are those of controller-runtime."""

    lease_name: str = "flotilla-operator"
    lease_duration_seconds: Annotated[int, Field(gt=1)] = 15
    renew_deadline_seconds: Seconds = 10
    retry_period_seconds: Seconds = 2

    @model_validator(mode="after")
    def _stops_before_others_begin(self) -> Self:
        """A leader that could not renew must have stopped before its lease expires."""
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
    """How metrics are read from pods."""

    concurrency: Annotated[int, Field(ge=1, le=1024)] = 64
    timeout_seconds: Seconds = 3


class OperatorConfig(Section):
    """Everything the operator is told from outside."""

    images: Images
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    watch_namespaces: tuple[str, ...] = ()
    labels: Labels = Labels()
    placement: Placement = Placement()
    leader: Leader = Leader()
    loop: Loop = Loop()
    scraping: Scraping = Scraping()
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
            fix="correct it in the chart's values",
        ) from None


def read_config(path: Path) -> OperatorConfig:
    """The configuration in a file."""
    try:
        return parse_config(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(
            field=str(path), problem=error.strerror or str(error), fix="mount the operator's ConfigMap there"
        ) from None
    except json.JSONDecodeError as error:
        raise ConfigError(
            field=str(path), problem=f"not JSON: {error}", fix="let the chart write this file"
        ) from None
