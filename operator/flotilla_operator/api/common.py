"""Parts that more than one kind uses: references, core/v1 shapes, services, volumes, conditions.

What Kubernetes defines is spelled as Kubernetes spells it, so a block can be copied from a Pod.
"""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field, WithJsonSchema

from flotilla_operator.api.base import ApiModel, MapList, Rule, rules

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
SECRET_KEY = r"^[-._a-zA-Z0-9]+$"  # noqa: S105 (a pattern, not a secret)
ENVIRONMENT_NAME = r"^[-._a-zA-Z][-._a-zA-Z0-9]*$"
QUANTITY = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
HTTP_URL = r"^https?://[^\s/]+(/[^\s]*)?$"
# As CEL writes a pattern. A folder's name may hold a space, as on many a share; no control character.
CLAIM_FOLDER = r"^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[^/\\x00-\\x1f\\x7f]+)*/?$"
NO_FOLDER_ABOVE = "!(self.startsWith('pvc://') && self.matches('/[.][.](/|$)'))"

ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_SUBDOMAIN)]
PartName = Annotated[str, Field(min_length=1, max_length=63, pattern=DNS_LABEL)]
ShortText = Annotated[str, Field(max_length=256)]
LongText = Annotated[str, Field(max_length=1024)]
LabelKey = Annotated[str, Field(max_length=317)]
LabelValue = Annotated[str, Field(max_length=63)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64)]
AnnotationValue = Annotated[str, Field(max_length=8192)]
Annotations = Annotated[dict[LabelKey, AnnotationValue], Field(max_length=64)]
HttpUrl = Annotated[str, Field(max_length=1024, pattern=HTTP_URL)]
ImageReference = Annotated[str, Field(min_length=1, max_length=512)]
Time = Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})]
Count = Annotated[int, Field(ge=0)]
Quantity = Annotated[
    str | int,
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": QUANTITY,
            "maxLength": 64,
        }
    ),
]
Quantities = Annotated[dict[LabelKey, Quantity], Field(max_length=32)]


def _open_object(key: str) -> WithJsonSchema:
    """An object of Kubernetes' own that is passed on as it is; only its key is known here."""
    return WithJsonSchema(
        {
            "type": "object",
            "properties": {key: {"type": "string", "maxLength": 1024}},
            "required": [key],
            "x-kubernetes-preserve-unknown-fields": True,
        }
    )


Volumes = Annotated[
    tuple[Annotated[dict[str, Any], _open_object("name")], ...], MapList("name"), Field(max_length=32)
]
VolumeMounts = Annotated[
    tuple[Annotated[dict[str, Any], _open_object("mountPath")], ...],
    MapList("mountPath"),
    Field(max_length=32),
]


class ObjectRef(ApiModel):
    """An object in the same namespace."""

    name: ObjectName
    """Its name."""


class SecretRef(ApiModel):
    """A whole secret in the same namespace."""

    name: ObjectName
    """The secret's name."""


class TokenSecretRef(SecretRef):
    """The entry of a secret that holds a token."""

    key: Annotated[str, Field(min_length=1, max_length=253, pattern=SECRET_KEY)] = "token"
    """The entry."""


class ApiKeySecretRef(SecretRef):
    """The entry of a secret that holds an API key."""

    key: Annotated[str, Field(min_length=1, max_length=253, pattern=SECRET_KEY)] = "apiKey"
    """The entry."""


class UrlSecretRef(SecretRef):
    """The entry of a secret that holds a URL with its credentials."""

    key: Annotated[str, Field(min_length=1, max_length=253, pattern=SECRET_KEY)] = "url"
    """The entry."""


class Tls(ApiModel):
    """TLS at a listener."""

    secret_ref: SecretRef
    """A secret of type `kubernetes.io/tls`; a renewed certificate is taken up without a restart."""


class KeySelector(ApiModel):
    """One entry of a ConfigMap or Secret (core/v1)."""

    name: ObjectName
    """The object's name."""
    key: Annotated[str, Field(min_length=1, max_length=253)]
    """The entry."""
    optional: bool | None = None
    """Whether the pod may start without it."""


class ObjectFieldSelector(ApiModel):
    """A field of the pod itself (core/v1)."""

    field_path: ShortText
    """For example `metadata.name`."""
    api_version: ShortText | None = None
    """The schema version of the path; v1 where absent."""


class ResourceFieldSelector(ApiModel):
    """A resource of one of the pod's containers (core/v1)."""

    resource: ShortText
    """For example `limits.cpu`."""
    container_name: ShortText | None = None
    """The container; the variable's own where absent."""
    divisor: Quantity | None = None
    """The unit of the value."""


class EnvVarSource(ApiModel):
    """Where a variable's value comes from (core/v1)."""

    config_map_key_ref: KeySelector | None = None
    """An entry of a ConfigMap."""
    secret_key_ref: KeySelector | None = None
    """An entry of a Secret."""
    field_ref: ObjectFieldSelector | None = None
    """A field of the pod."""
    resource_field_ref: ResourceFieldSelector | None = None
    """A resource of a container."""


class EnvVar(ApiModel):
    """An environment variable (core/v1)."""

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=ENVIRONMENT_NAME)]
    """The variable."""
    value: Annotated[str, Field(max_length=8192)] | None = None
    """Its value."""
    value_from: EnvVarSource | None = None
    """Where the value comes from instead."""


Environment = Annotated[tuple[EnvVar, ...], MapList("name"), Field(max_length=64)]


class ResourceRequirements(ApiModel):
    """What a container asks for and may use (core/v1)."""

    requests: Quantities = Field(default_factory=dict)
    """What the scheduler keeps free for it."""
    limits: Quantities = Field(default_factory=dict)
    """What it may use at most."""


class TolerationOperator(StrEnum):
    """How a toleration is compared with a taint (core/v1)."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does (core/v1)."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(ApiModel):
    """A taint that the pod puts up with (core/v1)."""

    key: LabelKey | None = None
    """The taint's key; with operator Exists, absent means every taint."""
    operator: TolerationOperator | None = None
    """Equal where absent."""
    value: LabelValue | None = None
    """The taint's value, for Equal."""
    effect: TaintEffect | None = None
    """Every effect where absent."""
    toleration_seconds: int | None = None
    """For NoExecute: how long the pod stays."""


class ServiceType(StrEnum):
    """How a service is reached."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


class ServiceOptions(ApiModel):
    """The service in front of a component."""

    type: ServiceType = ServiceType.CLUSTER_IP
    """ClusterIP inside the cluster; NodePort or LoadBalancer from outside."""
    annotations: Annotations = Field(default_factory=dict)
    """Annotations of the service, as a cloud's load balancer wants them."""


class Storage(ApiModel):
    """A claim that Flotilla makes."""

    size: Quantity = "10Gi"
    """How much is asked for. Growing it works where the storage class can grow; shrinking is refused by
    Kubernetes."""
    storage_class_name: ObjectName | None = None
    """The storage class; the cluster's default where absent."""


class DeletionPolicy(StrEnum):
    """What happens to the data when its object is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class ConditionStatus(StrEnum):
    """The three values of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """One aspect of the object's state, in the form that kubectl, kstatus and Argo CD read."""

    type: Annotated[str, Field(min_length=1, max_length=316)]
    """The aspect."""
    status: ConditionStatus
    """Whether it holds; Unknown until it was looked at."""
    reason: Annotated[str, Field(max_length=256)]
    """One word for why."""
    message: Annotated[str, Field(max_length=1024)]
    """A sentence that a person can act on."""
    last_transition_time: Time
    """When the status last changed."""
    observed_generation: int | None = None
    """The generation of the spec that this was judged by."""


class Status(ApiModel):
    """What the operator says about an object."""

    observed_generation: int | None = None
    """The generation of the spec that this status is about."""
    conditions: Annotated[tuple[Condition, ...], MapList("type"), Field(max_length=32)] = ()
    """Ready sums the others up. Reconciling: time will mend it. Stalled: a person must."""


class ApiObject(ApiModel):
    """An object of one of the kinds; `metadata` stays as Kubernetes wrote it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="self.metadata.name.size() <= 40",
                message="metadata.name may have at most 40 characters, since its children add a suffix",
            ),
            Rule(
                rule="self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                message="metadata.name must start with a letter, end with a letter or digit, and hold only "
                "lower-case letters, digits and '-'",
            ),
        )
    )

    api_version: str
    """The version of the API."""
    kind: str
    """The kind."""
    metadata: dict[str, Any]
    """Name, namespace, labels."""
