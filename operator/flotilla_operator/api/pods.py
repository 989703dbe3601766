"""Options that users set for the pods of a component: nodes, resources, labels and annotations.

Every component but the engines takes these options. Placement chooses the nodes of engines and reads no
affinity, so engine pods have options of their own (`spec.pod` of a ModelReplicaSet).
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field, GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from flotilla_operator.api.base import ApiModel, Rule, rules
from flotilla_operator.api.parts import (
    Annotations,
    Environment,
    Labels,
    ObjectName,
    ResourceRequirements,
    Toleration,
)

OpenObject = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
Terms = Annotated[tuple[OpenObject, ...], Field(max_length=32)]

PREFIX_OF_OUR_VARIABLES: Final = "FLOTILLA_"
OUR_LABELS: Final = (
    "app.kubernetes.io/component",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/name",
)


class NodeAffinity(ApiModel):
    """Nodes on which a pod should run (core/v1)."""

    required_during_scheduling_ignored_during_execution: OpenObject | None = None
    """Nodes on which alone the pod may run, as `nodeSelectorTerms` (core/v1), passed on unchanged. Absent:
    all."""
    preferred_during_scheduling_ignored_during_execution: Terms = ()
    """Nodes that are preferred, with weights (core/v1), passed on unchanged."""


class PodAffinity(ApiModel):
    """Other pods near which, or far from which, a pod should run (core/v1)."""

    required_during_scheduling_ignored_during_execution: Terms = ()
    """Terms that a node must fulfil (core/v1), passed on unchanged."""
    preferred_during_scheduling_ignored_during_execution: Terms = ()
    """Terms that are preferred, with weights (core/v1), passed on unchanged."""


class Affinity(ApiModel):
    """Where the scheduler puts a pod (core/v1)."""

    node_affinity: NodeAffinity | None = None
    """Nodes on which the pod should run. Absent: any."""
    pod_affinity: PodAffinity | None = None
    """Pods near which the pod should run. Absent: none."""
    pod_anti_affinity: PodAffinity | None = None
    """Pods far from which the pod should run. Absent: none."""


class PodOptions(ApiModel):
    """Options of the pods of a component that has a field for its resources already."""

    node_selector: Labels = Field(default_factory=dict)
    """Labels that a node must have (core/v1)."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    """Taints that the pods tolerate (core/v1)."""
    affinity: Affinity | None = None
    """Where the scheduler puts the pods (core/v1). Absent: only what Flotilla itself asks for, which holds
    beside it."""
    env: Environment = ()
    """Additional environment variables (core/v1) of the pods' first container."""
    priority_class_name: ObjectName | None = None
    """PriorityClass of the pods. Absent: the cluster's default."""
    runtime_class_name: ObjectName | None = None
    """RuntimeClass of the pods, for example of a sandbox. Absent: the cluster's default runtime."""
    labels: Labels = Field(default_factory=dict)
    """Additional labels of the pods. Those that Flotilla sets are refused."""
    annotations: Annotations = Field(default_factory=dict)
    """Additional annotations of the pods. Those that begin with `flotilla.dev/` are refused."""


class PodOptionsWithResources(PodOptions):
    """Options of the pods of a component."""

    resources: ResourceRequirements = ResourceRequirements()
    """Resource requests and limits (core/v1) of the pods' first container. They replace Flotilla's own as a
    whole, except that gateways and retrievers always have a memory limit. Absent: Flotilla's own requests,
    and these limits."""


@dataclass(frozen=True, slots=True)
class PodRules:
    """Marks the pod options at a path with the rules that hold for them.

    `variables` are those that Flotilla sets in these pods beside `FLOTILLA_…`. A user who could set one too
    would not know which value counts.
    """

    path: str
    variables: tuple[str, ...] = ()

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Add the rules to the schema of the field, where their messages can name its whole path."""
        return {**handler(core_schema), **rules(*self.rules)}

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, with messages that name the field and the fix."""
        ours = "".join(f"{name}, " for name in self.variables)
        own_names = "".join(f" || variable.name == '{name}'" for name in self.variables)
        return (
            Rule(
                rule="!has(self.env) || !self.env.exists(variable, "
                f"variable.name.startsWith('{PREFIX_OF_OUR_VARIABLES}'){own_names})",
                message=f"{self.path}.env must not set {ours and ours[:-2] + ' or '}a variable that begins "
                f"with {PREFIX_OF_OUR_VARIABLES}, because Flotilla sets them; remove it",
            ),
            Rule(
                rule="!has(self.env) || !self.env.exists(variable, "
                "has(variable.valueFrom) && has(variable.value) && variable.value != '')",
                message=f"{self.path}.env must not give a variable both value and valueFrom; remove one",
            ),
            Rule(
                rule="!has(self.tolerations) || self.tolerations.all(one, "
                "(has(one.operator) && one.operator == 'Exists') ? "
                "(!has(one.value) || one.value == '') : (has(one.key) && one.key != ''))",
                message=f"{self.path}.tolerations: with operator Exists, remove value; with operator Equal, "
                "which is the default, set key",
            ),
            Rule(
                rule="!has(self.tolerations) || self.tolerations.all(one, "
                "!has(one.tolerationSeconds) || (has(one.effect) && one.effect == 'NoExecute'))",
                message=f"{self.path}.tolerations: tolerationSeconds needs the effect NoExecute; set it, or "
                "remove tolerationSeconds",
            ),
            Rule(
                rule="!has(self.labels) || self.labels.all(name, !name.startsWith('flotilla.dev/') && "
                f"!(name in [{', '.join(repr(name) for name in OUR_LABELS)}]))",
                message=f"{self.path}.labels must not set {', '.join(OUR_LABELS)} or a label that begins "
                "with flotilla.dev/, because Flotilla's services and network policies select pods by them; "
                "remove it",
            ),
            Rule(
                rule="!has(self.annotations) || "
                "self.annotations.all(name, !name.startsWith('flotilla.dev/'))",
                message=f"{self.path}.annotations must not set an annotation that begins with flotilla.dev/, "
                "because Flotilla sets them; remove it",
            ),
        )
