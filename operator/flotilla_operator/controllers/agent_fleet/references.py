"""What a fleet refers to, looked up: models, indexes, secrets; and what is wrong with them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from flotilla_operator.api.agent_fleet import AgentFleetSpec, AuthMode, FleetModel, RedisMode
from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec, Task
from flotilla_operator.api.vector_index import Retriever
from flotilla_operator.cluster.resources import MODEL_REPLICA_SETS, VECTOR_INDEXES
from flotilla_operator.cluster.writes import Manifest
from flotilla_operator.controllers.agent_fleet.reasons import Reason
from flotilla_operator.controllers.agent_fleet.seen import Problem, Problems
from flotilla_operator.controllers.conditions import MendedBy, conditions_of, is_true
from flotilla_operator.controllers.controller import Secret, World
from flotilla_operator.workloads.agent_fleet import SecretEntry, Wiring
from flotilla_operator.workloads.hashing import stable_hash
from flotilla_operator.workloads.labels import Owner
from flotilla_operator.workloads.model_replica_set import internal_url
from flotilla_runtime import contract

UNSTATED_CONTEXT_TOKENS = 4096  # a model that says nothing of its context is asked for no more than this


@dataclass(slots=True)
class Found:
    """What the references came to, collected one by one."""

    models: list[contract.ModelConnection] = field(default_factory=list)
    indexes: list[contract.IndexConnection] = field(default_factory=list)
    keys: list[SecretEntry] = field(default_factory=list)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)  # by secret and entry
    model_problems: list[Problem] = field(default_factory=list)
    index_problems: list[Problem] = field(default_factory=list)
    queue_problems: list[Problem] = field(default_factory=list)
    gateway_problems: list[Problem] = field(default_factory=list)


class References:
    """Looks up what one fleet names, in its namespace."""

    def __init__(self, manifest: Manifest, spec: AgentFleetSpec, world: World) -> None:
        self._namespace: str = manifest["metadata"]["namespace"]
        self._name: str = manifest["metadata"]["name"]
        self._spec = spec
        self._world = world
        self._found = Found()

    async def look_up(self) -> tuple[Wiring, Problems]:
        """Everything the fleet names."""
        for model in self._spec.models:
            await self._model(model)
        for index in self._spec.indexes:
            self._index(index.name, index.index_ref.name)
        await self._redis()
        await self._callers()
        found, spec = self._found, self._spec
        known = len(found.models) == len(spec.models) and len(found.indexes) == len(spec.indexes)
        wiring = Wiring(
            models=tuple(found.models),
            indexes=tuple(found.indexes),
            model_keys=tuple(found.keys),
            secret_versions={name: stable_hash(entries) for name, entries in found.versions.items()},
            complete=known and not found.queue_problems,
        )
        return wiring, Problems(
            models=tuple(found.model_problems),
            indexes=tuple(found.index_problems),
            queue=tuple(found.queue_problems),
            gateway=tuple(found.gateway_problems),
        )

    async def _model(self, model: FleetModel) -> None:
        if model.endpoint is not None:
            await self._endpoint(model)
        elif model.model_ref is not None:
            await self._replica_set(model.role, model.model_ref.name)

    async def _endpoint(self, model: FleetModel) -> None:
        endpoint = model.endpoint
        assert endpoint is not None
        variable = None
        if (ref := endpoint.api_key_secret_ref) is not None:
            field_path = f"spec.models[{model.role}].endpoint.apiKeySecretRef"
            if not await self._entry(field_path, ref.name, ref.key, self._found.model_problems):
                return
            variable = self._key_of(model.role, ref.name, ref.key)
        self._found.models.append(
            contract.ModelConnection(
                role=model.role,
                name=endpoint.model,
                url=endpoint.url,
                model=endpoint.model,
                context_tokens=UNSTATED_CONTEXT_TOKENS,
                key_environment=variable,
            )
        )

    async def _replica_set(self, role: str, name: str) -> None:
        """A model of ours; one that has no replica yet is called all the same, since callers wait for it."""
        field_path = f"spec.models[{role}].modelRef"
        problems = self._found.model_problems
        manifest = self._world.caches.get(MODEL_REPLICA_SETS, self._namespace, name)
        if manifest is None:
            problems.append(
                Problem(
                    reason=Reason.MODEL_MISSING,
                    message=f"{field_path}: there is no ModelReplicaSet {name!r} here; create it",
                )
            )
            return
        try:
            spec = ModelReplicaSetSpec.model_validate(manifest["spec"])
        except ValidationError:
            problems.append(_starting(f"{field_path}: the spec of ModelReplicaSet {name!r} is invalid"))
            return
        if spec.model.task is not Task.GENERATE:
            problems.append(
                Problem(
                    reason=Reason.MODEL_WRONG_TASK,
                    message=f"{field_path}: ModelReplicaSet {name!r} has task {spec.model.task}; name one "
                    f"with task {Task.GENERATE}",
                    mended_by=MendedBy.PERSON,
                )
            )
            return
        url = (manifest.get("status") or {}).get("url")
        if url is None:
            problems.append(_starting(f"{field_path}: ModelReplicaSet {name!r} has no address yet"))
            return
        if spec.router.tls is not None:
            owner = Owner(
                kind=MODEL_REPLICA_SETS.kind,
                namespace=self._namespace,
                name=name,
                uid=manifest["metadata"]["uid"],
            )
            url = internal_url(owner, spec)
        if not is_true(manifest, "Available"):
            problems.append(
                _starting(f"{field_path}: {name!r} is not available: {_why(manifest, 'Available')}")
            )
        variable = None
        if (keys := spec.router.auth_secret_ref) is not None:
            entry = contract.caller_entry("AgentFleet", self._name)
            if not await self._entry(f"the callers of {name!r}", keys.name, entry, problems):
                return
            variable = self._key_of(role, keys.name, entry)
        self._found.models.append(
            contract.ModelConnection(
                role=role,
                name=name,
                url=url,
                model=spec.model.name,
                context_tokens=spec.engine.max_model_len or UNSTATED_CONTEXT_TOKENS,
                key_environment=variable,
            )
        )

    def _index(self, name: str, referred: str) -> None:
        field_path = f"spec.indexes[{name}].indexRef"
        manifest = self._world.caches.get(VECTOR_INDEXES, self._namespace, referred)
        if manifest is None:
            self._found.index_problems.append(
                Problem(
                    reason=Reason.INDEX_MISSING,
                    message=f"{field_path}: there is no VectorIndex {referred!r} here; create it",
                )
            )
            return
        status = manifest.get("status") or {}
        url = status.get("url")
        if url is None or status.get("activeGeneration") is None:
            phase = status.get("phase", "Pending")
            self._found.index_problems.append(
                Problem(
                    reason=Reason.INDEX_BUILDING,
                    message=f"{field_path}: VectorIndex {referred!r} serves nothing yet ({phase}): "
                    f"{_why(manifest, 'Ready')}",
                )
            )
        if url is not None:
            retriever = manifest["spec"].get("retriever") or {}
            deadline = retriever.get("deadlineMilliseconds", Retriever().deadline_milliseconds)
            self._found.indexes.append(
                contract.IndexConnection(name=name, url=url, deadline_milliseconds=deadline)
            )

    async def _redis(self) -> None:
        redis = self._spec.queue.redis
        if redis.mode is RedisMode.EXTERNAL and (ref := redis.url_secret_ref) is not None:
            await self._entry("spec.queue.redis.urlSecretRef", ref.name, ref.key, self._found.queue_problems)

    async def _callers(self) -> None:
        auth = self._spec.gateway.auth
        if auth.mode is not AuthMode.SECRET or auth.secret_ref is None:
            return
        problems = self._found.gateway_problems
        secret = await self._secret("spec.gateway.auth.secretRef", auth.secret_ref.name, problems)
        if secret is not None and not any(secret.data.values()):
            problems.append(
                Problem(
                    reason=Reason.SECRET_KEY_MISSING,
                    message=f"spec.gateway.auth.secretRef: the Secret {secret.name!r} is empty, so nobody "
                    "can call; add an entry for each caller",
                    mended_by=MendedBy.PERSON,
                )
            )

    async def _entry(self, field_path: str, name: str, key: str, problems: list[Problem]) -> bool:
        """Whether a secret has this entry; what lacks is noted."""
        secret = await self._secret(field_path, name, problems)
        if secret is None:
            return False
        if key not in secret.data:
            problems.append(
                Problem(
                    reason=Reason.SECRET_KEY_MISSING,
                    message=f"{field_path}: the Secret {name!r} has no entry {key!r}; add it",
                    mended_by=MendedBy.PERSON,
                )
            )
            return False
        self._found.versions.setdefault(name, {})[key] = secret.version(key)
        return True

    async def _secret(self, field_path: str, name: str, problems: list[Problem]) -> Secret | None:
        secret = await self._world.secret(self._namespace, name)
        if secret is None:
            problems.append(
                Problem(
                    reason=Reason.SECRET_MISSING,
                    message=f"{field_path}: there is no Secret {name!r} here; create it",
                    mended_by=MendedBy.PERSON,
                )
            )
        return secret

    def _key_of(self, role: str, secret: str, key: str) -> str:
        variable = f"{contract.ENV_MODEL_KEY_PREFIX}{role.upper()}"
        self._found.keys.append(SecretEntry(environment=variable, name=secret, key=key))
        return variable


def _starting(message: str) -> Problem:
    return Problem(reason=Reason.MODEL_STARTING, message=message)


def _why(manifest: Manifest, condition_type: str) -> str:
    """What another object says about itself."""
    told: Sequence[str] = [
        str(condition.get("message") or condition.get("reason"))
        for condition in conditions_of(manifest)
        if condition.get("type") == condition_type
    ]
    return told[0] if told else "it has not said why"
