"""Parts of the API that more than one kind uses: references, core/v1 shapes, services, storage, conditions.

Shapes of core/v1 have the field names of Kubernetes, so that a block can be copied from a Pod.
"""

from enum import StrEnum
from typing import Annotated, Any, Final

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
# Escaped for CEL. The name of a folder may contain a space, but no control character.
CLAIM_FOLDER = r"^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[^/\\x00-\\x1f\\x7f]+)*/?$"
NO_FOLDER_ABOVE = "!(self.startsWith('pvc://') && self.matches('/[.][.](/|$)'))"

ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_SUBDOMAIN)]
PartName = Annotated[str, Field(min_length=1, max_length=63, pattern=DNS_LABEL)]
ShortText = Annotated[str, Field(max_length=256)]
MESSAGE_LIMIT: Final = 1024  # of the characters of a message in a status
LongText = Annotated[str, Field(max_length=1024)]
LabelKey = Annotated[str, Field(max_length=317)]
LabelValue = Annotated[str, Field(max_length=63)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64)]
AnnotationValue = Annotated[str, Field(max_length=8192)]
Annotations = Annotated[dict[LabelKey, AnnotationValue], Field(max_length=64)]
HttpUrl = Annotated[
    str,
    Field(max_length=1024, pattern=HTTP_URL),
    Rule(
        rule="!self.matches('^[a-z]+://[^/?#]*@')",
        message="a URL must not have a user or a password in it, because everybody who reads the object sees "
        "them; put them into a Secret and name it in apiKeySecretRef, headersSecretRef or tokenSecretRef "
        "beside the URL",
    ),
]
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


def _open_object(key: str, description: str) -> WithJsonSchema:
    """An object of core/v1 that is passed on unchanged; the schema knows only its key."""
    return WithJsonSchema(
        {
            "type": "object",
            "properties": {key: {"type": "string", "maxLength": 1024, "description": description}},
            "required": [key],
            "x-kubernetes-preserve-unknown-fields": True,
        }
    )


Volumes = Annotated[
    tuple[Annotated[dict[str, Any], _open_object("name", "Name of the volume.")], ...],
    MapList("name"),
    Field(max_length=32),
]
VolumeMounts = Annotated[
    tuple[
        Annotated[
            dict[str, Any], _open_object("mountPath", "Path in the container at which the volume is mounted.")
        ],
        ...,
    ],
    MapList("mountPath"),
    Field(max_length=32),
]


class ObjectRef(ApiModel):
    """An object in the same namespace."""

    name: ObjectName
    """Name of the object."""


class SecretRef(ApiModel):
    """A secret in the same namespace."""

    name: ObjectName
    """Name of the secret."""


class TokenSecretRef(SecretRef):
    """An entry of a secret that contains a token."""

    key: Annotated[str, Field(min_length=1, max_length=253, pattern=SECRET_KEY)] = "token"
    """Entry of the secret that contains the token."""


class ApiKeySecretRef(SecretRef):
    """An entry of a secret that contains an API key."""

    key: Annotated[str, Field(min_length=1, max_length=253, pattern=SECRET_KEY)] = "apiKey"
    """Entry of the secret that contains the API key."""


class UrlSecretRef(SecretRef):
    """An entry of a secret that contains a URL with its credentials."""

    key: Annotated[str, Field(min_length=1, max_length=253, pattern=SECRET_KEY)] = "url"
    """Entry of the secret that contains the URL."""


class Tls(ApiModel):
    """The certificate with which a server speaks HTTPS."""

    secret_ref: SecretRef
    """Secret of type `kubernetes.io/tls`. A renewed certificate takes effect without a restart."""


class KeySelector(ApiModel):
    """One entry of a ConfigMap or Secret (core/v1)."""

    name: ObjectName
    """Name of the ConfigMap or Secret."""
    key: Annotated[str, Field(min_length=1, max_length=253)]
    """Entry to read."""
    optional: bool | None = None
    """Whether the pod may start when the entry does not exist. Absent: it may not."""


class ObjectFieldSelector(ApiModel):
    """A field of the pod itself (core/v1)."""

    field_path: ShortText
    """Path of the field, for example `metadata.name`."""
    api_version: ShortText | None = None
    """API version that `fieldPath` belongs to. Absent: v1."""


class ResourceFieldSelector(ApiModel):
    """A resource of one of the pod's containers (core/v1)."""

    resource: ShortText
    """Name of the resource, for example `limits.cpu`."""
    container_name: ShortText | None = None
    """Container whose resource is read. Absent: the container that has the variable."""
    divisor: Quantity | None = None
    """Unit in which the value is given, for example `1Mi`. Absent: 1."""


class EnvVarSource(ApiModel):
    """The place that the value of a variable is read from (core/v1)."""

    config_map_key_ref: KeySelector | None = None
    """Reads the value from an entry of a ConfigMap."""
    secret_key_ref: KeySelector | None = None
    """Reads the value from an entry of a Secret."""
    field_ref: ObjectFieldSelector | None = None
    """Reads the value from a field of the pod."""
    resource_field_ref: ResourceFieldSelector | None = None
    """Reads the value from the requests or limits of a container."""


class EnvVar(ApiModel):
    """An environment variable (core/v1)."""

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=ENVIRONMENT_NAME)]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=8192)] | None = None
    """Value of the variable. Absent: empty, unless `valueFrom` is set."""
    value_from: EnvVarSource | None = None
    """Reads the value from somewhere else, instead of `value`."""


Environment = Annotated[tuple[EnvVar, ...], MapList("name"), Field(max_length=64)]


class ResourceRequirements(ApiModel):
    """Resource requests and limits of a container (core/v1)."""

    requests: Quantities = Field(default_factory=dict)
    """Resources that the scheduler reserves for the container."""
    limits: Quantities = Field(default_factory=dict)
    """Resources that the container may use at most."""


class TolerationOperator(StrEnum):
    """How a toleration is matched with a taint (core/v1)."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """The effect of a taint (core/v1)."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(ApiModel):
    """A taint that the pod tolerates (core/v1)."""

    key: LabelKey | None = None
    """Key of the taint. Absent, with operator Exists: every taint."""
    operator: TolerationOperator | None = None
    """Exists: every value of the taint matches. Equal: only `value` matches. Absent: Equal."""
    value: LabelValue | None = None
    """Value of the taint, for operator Equal. Absent: empty."""
    effect: TaintEffect | None = None
    """Effect of the taint: NoSchedule, PreferNoSchedule or NoExecute. Absent: every effect."""
    toleration_seconds: int | None = None
    """How long the pod stays on a node that gets a NoExecute taint, in seconds. Absent: without a limit."""


class ServiceType(StrEnum):
    """The type of a service (core/v1)."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


class ServiceOptions(ApiModel):
    """Options of the service at which a component is reached."""

    type: ServiceType = ServiceType.CLUSTER_IP
    """ClusterIP: the service is reached from inside the cluster only. NodePort, LoadBalancer: also from
    outside."""
    annotations: Annotations = Field(default_factory=dict)
    """Annotations of the service, for example those that a cloud's load balancer reads."""


class Storage(ApiModel):
    """A PersistentVolumeClaim that Flotilla creates."""

    size: Quantity = "10Gi"
    """Size of the claim. It can be raised later if the storage class allows expansion; Kubernetes refuses to
    lower it."""
    storage_class_name: ObjectName | None = None
    """StorageClass of the claim. Absent: the cluster's default."""


class DeletionPolicy(StrEnum):
    """Action on the data when its object is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class ConditionStatus(StrEnum):
    """The status of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """One aspect of the object's state, in the form that kubectl, kstatus and Argo CD read."""

    type: Annotated[str, Field(min_length=1, max_length=316)]
    """The aspect, for example Ready."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: Annotated[str, Field(max_length=256)]
    """The cause of the status, as one word in CamelCase."""
    message: Annotated[str, Field(max_length=MESSAGE_LIMIT)]
    """The cause as a sentence, with what to do about it. May be empty when nothing is wrong."""
    last_transition_time: Time
    """When `status` last changed."""
    observed_generation: int | None = None
    """The object's `metadata.generation` that the condition is about."""


Conditions = Annotated[tuple[Condition, ...], MapList("type"), Field(max_length=32)]


class Status(ApiModel):
    """The fields that the status of every kind has. Each kind says which conditions it has."""

    observed_generation: int | None = None
    """The object's `metadata.generation` that this status is about. While it is lower than
    `metadata.generation`, the operator has not yet seen the latest change."""
    conditions: Conditions = ()
    """State of the object, one condition for each aspect."""


class ApiObject(ApiModel):
    """An object of one of the kinds. Its `metadata` is kept as the API server returns it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="self.metadata.name.size() <= 40",
                message="metadata.name must have at most 40 characters, because Flotilla adds suffixes "
                "to it for the names of other objects; choose a shorter name",
            ),
            Rule(
                rule="self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                message="metadata.name must start with a letter, end with a letter or digit, and contain "
                "only lower-case letters, digits and '-'; choose another name",
            ),
        )
    )

    api_version: str
    """Version of the API."""
    kind: str
    """Name of the kind."""
    metadata: dict[str, Any]
    """Standard metadata of Kubernetes."""
