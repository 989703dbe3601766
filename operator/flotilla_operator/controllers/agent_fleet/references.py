"""Looks up the models, indexes and secrets that a fleet refers to, and collects what is wrong with them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from flotilla_operator.api.agent_fleet import AgentFleetSpec, AuthMode
from flotilla_operator.api.fleet_agent import FleetModel
from flotilla_operator.api.fleet_queue import RedisMode
from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec, Task
from flotilla_operator.api.parts import UrlSecretRef
from flotilla_operator.api.vector_index import Retriever
from flotilla_operator.controllers.agent_fleet.capacities import capacity_of
from flotilla_operator.controllers.agent_fleet.contexts import Context, context_of_endpoint, context_of_set
from flotilla_operator.controllers.agent_fleet.prices import prices_of, timeouts_of
from flotilla_operator.controllers.agent_fleet.reasons import Reason
from flotilla_operator.controllers.agent_fleet.redis_hosts import REDIS_PORT, SENTINEL_PORT, hosts_of
from flotilla_operator.controllers.agent_fleet.seen import MissingParts
from flotilla_operator.controllers.conditions import MendedBy, conditions_of, is_true
from flotilla_operator.controllers.controller import Secret, World
from flotilla_operator.controllers.missing import Missing
from flotilla_operator.controllers.mounted_claims import (
    NamedClaim,
    Unaskable,
    claim_problem,
    claims_of_volumes,
)
from flotilla_operator.controllers.pod_classes import NamedClass, classes_of, missing_of
from flotilla_operator.objects.hashes import stable_hash
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import (
    AGENT_FLEETS,
    MODEL_REPLICA_SETS,
    PRIORITY_CLASSES,
    RUNTIME_CLASSES,
    VECTOR_INDEXES,
    Manifest,
)
from flotilla_operator.objects.used_by import User
from flotilla_operator.workloads.agent_fleet import IndexKey, SecretEntry, Wiring
from flotilla_operator.workloads.agent_fleet.model_names import model_names
from flotilla_operator.workloads.agent_fleet.payloads import ENTRIES, endpoint_of
from flotilla_operator.workloads.agent_fleet.telemetry import telemetry_config
from flotilla_operator.workloads.agent_fleet.tools import called_urls
from flotilla_operator.workloads.model_replica_set import internal_url
from flotilla_operator.workloads.proxies import named_proxies
from flotilla_operator.workloads.vector_index.retriever import retriever_url
from flotilla_operator.workloads.vector_index.retriever_key import KEY_ENTRY, retriever_key
from flotilla_runtime import contract

INDEX_PROMOTING = "Promoting"  # the phase of an index that is built for the first time and not Ready yet
UNREADABLE_REDIS = (
    "its hosts cannot be read from the URL in the Secret of spec.queue.redis.urlSecretRef; write it as "
    "redis://user:password@host:port/0, and percent-encode the special characters of the password"
)
CLASS_MISSING = {
    PRIORITY_CLASSES: Reason.PRIORITY_CLASS_MISSING,
    RUNTIME_CLASSES: Reason.RUNTIME_CLASS_MISSING,
}


@dataclass(slots=True)
class Found:
    """References found so far; each one adds to it."""

    models: list[contract.ModelConnection] = field(default_factory=list)
    capacities: list[contract.ModelCapacity] = field(default_factory=list)
    indexes: list[contract.IndexConnection] = field(default_factory=list)
    keys: list[SecretEntry] = field(default_factory=list)
    index_keys: list[IndexKey] = field(default_factory=list)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)  # by the secret's name, then the entry
    assumed_contexts: list[str] = field(default_factory=list)
    missing_models: list[Missing] = field(default_factory=list)
    missing_indexes: list[Missing] = field(default_factory=list)
    missing_tools: list[Missing] = field(default_factory=list)
    missing_queue: list[Missing] = field(default_factory=list)
    missing_gateway: list[Missing] = field(default_factory=list)
    missing_certificate: list[Missing] = field(default_factory=list)
    missing_workers: list[Missing] = field(default_factory=list)
    missing_executors: list[Missing] = field(default_factory=list)
    telemetry: contract.TelemetryConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CalledSet:
    """A ModelReplicaSet with the task of a role, and the address at which agents call it."""

    manifest: Manifest
    spec: ModelReplicaSetSpec
    url: str


class References:
    """Looks up what one fleet refers to, in the fleet's namespace."""

    def __init__(self, manifest: Manifest, spec: AgentFleetSpec, world: World) -> None:
        self._namespace: str = manifest["metadata"]["namespace"]
        self._name: str = manifest["metadata"]["name"]
        self._spec = spec
        self._world = world
        self._me = User(kind=AGENT_FLEETS.kind, name=self._name)
        self._found = Found()

    async def look_up(self) -> tuple[Wiring, MissingParts]:
        """Look up everything that the fleet refers to."""
        for model in self._spec.models:
            await self._model(model)
        for index in self._spec.indexes:
            await self._index(index.name, index.index_ref.name)
        await self._tools()
        await self._redis()
        await self._payloads()
        await self._callers()
        await self._certificate()
        await self._telemetry()
        self._classes()
        claims_are_ours = self._claims()
        found, spec = self._found, self._spec
        known = len(found.models) == len(spec.models) and len(found.indexes) == len(spec.indexes)
        usable = not (found.missing_queue or found.missing_tools) and self._has_prices() and claims_are_ours
        wiring = Wiring(
            models=tuple(found.models),
            capacities=tuple(dict.fromkeys(found.capacities)),
            indexes=tuple(found.indexes),
            model_keys=tuple(found.keys),
            index_keys=tuple(found.index_keys),
            assumed_contexts=tuple(found.assumed_contexts),
            secret_versions={name: stable_hash(entries) for name, entries in found.versions.items()},
            telemetry=found.telemetry,
            complete=known and usable,
        )
        return wiring, MissingParts(
            models=tuple(found.missing_models),
            indexes=tuple(found.missing_indexes),
            tools=tuple(found.missing_tools),
            queue=tuple(found.missing_queue),
            gateway=tuple(found.missing_gateway),
            certificate=tuple(found.missing_certificate),
            workers=tuple(found.missing_workers),
            executors=tuple(found.missing_executors),
        )

    async def _model(self, model: FleetModel) -> None:
        if model.endpoint is not None:
            await self._endpoint(model)
        elif model.model_ref is not None:
            await self._replica_set(model, model.model_ref.name)

    async def _endpoint(self, model: FleetModel) -> None:
        endpoint = model.endpoint
        assert endpoint is not None
        variable = None
        if (ref := endpoint.api_key_secret_ref) is not None:
            field_path = f"spec.models[{model.role}].endpoint.apiKeySecretRef"
            missing = self._found.missing_models
            if not await self._entry(field_path, ref.name, ref.key, missing, to=(endpoint.url,)):
                return
            variable = self._key_of(model.role, ref.name, ref.key)
        self._found.models.append(
            contract.ModelConnection(
                role=model.role,
                name=model_names(self._spec.models)[model.role],
                url=endpoint.url,
                model=endpoint.model,
                context_tokens=self._context(model.role, context_of_endpoint(model)),
                max_output_tokens=model.max_output_tokens,
                asks_context=model.context_tokens is None,
                key_environment=variable,
                pricing=prices_of(model, None),
                timeouts=timeouts_of(model),
                rate_limit=model.rate_limit,
                overflow_to=model.overflow_to,
                isolate_tenants=model.isolate_tenants,
            )
        )

    def _context(self, role: str, context: Context) -> int:
        if not context.is_known:
            self._found.assumed_contexts.append(role)
        return context.tokens

    async def _replica_set(self, model: FleetModel, name: str) -> None:
        """Look up a ModelReplicaSet. One without a ready replica counts too: its router lets callers wait."""
        role = model.role
        field_path = f"spec.models[{role}].modelRef"
        missing = self._found.missing_models
        found = self._called_set(
            field_path, name, Task.EMBED if role == contract.EMBED_ROLE else Task.GENERATE
        )
        if isinstance(found, Missing):
            missing.append(found)
            return
        if not is_true(found.manifest, "Available"):
            why = _why(found.manifest, "Available")
            missing.append(_starting(f"{field_path}: ModelReplicaSet {name!r} is not Available: {why}"))
        variable = None
        if (keys := found.spec.router.auth_secret_ref) is not None:
            entry = contract.caller_entry("AgentFleet", self._name)
            key_path = f"{field_path}: spec.router.authSecretRef of ModelReplicaSet {name!r}"
            user = User(kind=MODEL_REPLICA_SETS.kind, name=name)
            if not await self._entry(key_path, keys.name, entry, missing, user=user):
                return
            variable = self._key_of(role, keys.name, entry)
        context = context_of_set(model, found.spec, _made_for(found.manifest))
        if found.spec.model.task is Task.GENERATE:
            told = found.manifest.get("status") or {}
            self._found.capacities.append(capacity_of(name, told, found.spec, context.tokens))
        self._found.models.append(
            contract.ModelConnection(
                role=role,
                name=name,
                url=found.url,
                model=found.spec.model.name,
                context_tokens=self._context(role, context),
                max_output_tokens=model.max_output_tokens,
                key_environment=variable,
                tokenizes=found.spec.model.task is Task.GENERATE,
                pricing=prices_of(model, found.spec.pricing),
                timeouts=timeouts_of(model),
                rate_limit=model.rate_limit,
                overflow_to=model.overflow_to,
                isolate_tenants=model.isolate_tenants,
            )
        )

    def _has_prices(self) -> bool:
        """Whether every model has prices, where the cost of a task is limited. What lacks is told."""
        if self._spec.limits.max_cost_usd is None:
            return True
        without = [model.role for model in self._found.models if not model.pricing.is_known]
        for role in without:
            message = (
                f"spec.models[{role}].pricing: with spec.limits.maxCostUSD every model needs prices; set "
                "inputPerMillionUSD and outputPerMillionUSD, here or in spec.pricing of its ModelReplicaSet"
            )
            self._found.missing_models.append(Missing(reason=Reason.MODEL_WITHOUT_PRICE, message=message))
        return not without

    def _called_set(self, field_path: str, name: str, task: Task) -> CalledSet | Missing:
        """The ModelReplicaSet with its address, or why it has none that agents can call."""
        manifest = self._world.caches.get(MODEL_REPLICA_SETS, self._namespace, name)
        if manifest is None:
            message = f"{field_path}: there is no ModelReplicaSet {name!r} in this namespace; create it"
            return Missing(reason=Reason.MODEL_MISSING, message=message, mended_by=MendedBy.TIME)
        try:
            spec = ModelReplicaSetSpec.model_validate(manifest["spec"])
        except ValidationError:
            return _starting(
                f"{field_path}: the spec of ModelReplicaSet {name!r} is invalid; see its conditions"
            )
        if spec.model.task is not task:
            return Missing(
                reason=Reason.MODEL_WRONG_TASK,
                message=f"{field_path}: the spec.model.task of ModelReplicaSet {name!r} is "
                f"{spec.model.task}; refer to one with the task {task}",
            )
        url = (manifest.get("status") or {}).get("url")
        if url is None:
            return _starting(f"{field_path}: ModelReplicaSet {name!r} has no status.url yet")
        if spec.router.tls is not None:
            url = internal_url(Owner.of(MODEL_REPLICA_SETS.kind, manifest), spec)
        return CalledSet(manifest=manifest, spec=spec, url=url)

    async def _index(self, name: str, referred: str) -> None:
        field_path = f"spec.indexes[{name}].indexRef"
        manifest = self._world.caches.get(VECTOR_INDEXES, self._namespace, referred)
        if manifest is None:
            self._found.missing_indexes.append(
                Missing(
                    reason=Reason.INDEX_MISSING,
                    message=f"{field_path}: there is no VectorIndex {referred!r} in this namespace; "
                    "create it",
                    mended_by=MendedBy.TIME,
                )
            )
            return
        status = manifest.get("status") or {}
        if (reason := _unsearched(manifest)) is not None:
            phase = status.get("phase", "Pending")
            self._found.missing_indexes.append(
                Missing(
                    reason=reason,
                    message=f"{field_path}: VectorIndex {referred!r} cannot be searched yet (its phase is "
                    f"{phase}): {_why(manifest, 'Ready')}",
                    mended_by=MendedBy.TIME,
                )
            )
        if (url := status.get("url")) is None:
            return
        key_path = None
        retriever = manifest["spec"].get("retriever") or {}
        if (keys := status.get("keys")) is not None:  # else its retriever is older than keys
            key_path = await self._index_key(name, manifest, keys)
            if key_path is None:
                return
            url = retriever_url(Owner.of(VECTOR_INDEXES.kind, manifest))
        deadline = retriever.get("deadlineMilliseconds", Retriever().deadline_milliseconds)
        self._found.indexes.append(
            contract.IndexConnection(name=name, url=url, deadline_milliseconds=deadline, key_path=key_path)
        )

    async def _index_key(self, name: str, manifest: Manifest, keys: Manifest) -> str | None:
        """Where workers have the key of an index; None while the secret lacks the fleet's entry.

        A key that the operator made is no entry of the fleet's, and the index sees to it. The index's status
        says which of both it is, and names no secret: who may write it could have any secret mounted.
        """
        referred = manifest["metadata"]["name"]
        named = ((manifest["spec"].get("retriever") or {}).get("authSecretRef") or {}).get("name")
        made = keys.get("entry") is not None
        secret = retriever_key(Owner.of(VECTOR_INDEXES.kind, manifest)).name if made else named
        if secret is None:
            return None  # the spec has changed, and the status follows
        entry = KEY_ENTRY if made else contract.caller_entry("AgentFleet", self._name)
        key = IndexKey(index=name, name=secret, key=entry)
        path = f"spec.indexes[{name}].indexRef: spec.retriever.authSecretRef of VectorIndex {referred!r}"
        user = User(kind=VECTOR_INDEXES.kind, name=referred)
        missing = self._found.missing_indexes
        if not made and not await self._entry(path, key.name, key.key, missing, user=user):
            return None
        self._found.index_keys.append(key)
        return key.path

    async def _tools(self) -> None:
        """Look up the secrets of tools; each may be sent to its tool's URL alone."""
        missing = self._found.missing_tools
        for called in called_urls(self._spec):
            if (ref := called.headers) is None:
                continue
            field_path = f"{called.field}.headersSecretRef"
            secret = await self._secret(field_path, ref.name, missing)
            if secret is not None:
                self._may_be_sent(field_path, secret, called.url, missing)
        for tool in self._spec.tools:
            if tool.sql is not None:
                await self._database(f"spec.tools[{tool.name}].sql.urlSecretRef", tool.sql.url_secret_ref)

    async def _database(self, field_path: str, ref: UrlSecretRef) -> None:
        """Look up the secret with the URL of a database; it may be sent to that database alone."""
        missing = self._found.missing_tools
        secret = await self._secret(field_path, ref.name, missing)
        if secret is None:
            return
        if (wrong := secret.problem(ref.key, contract.SecretForm.TEXT)) is not None:
            missing.append(Missing(reason=Reason.SECRET_KEY_MISSING, message=f"{field_path}: {wrong}"))
            return
        try:
            url = contract.read_database_url(secret.data[ref.key].decode())
        except contract.DatabaseUrlError as problem:
            message = (
                f"{field_path}: the entry {ref.key!r} of the Secret {ref.name!r} cannot be used: {problem}"
            )
            missing.append(Missing(reason=Reason.TOOL_UNUSABLE, message=message))
            return
        self._may_be_sent(field_path, secret, url.address, missing)

    async def _redis(self) -> None:
        """Look up the URL of the user's Redis and its sentinels' password; both go to its hosts alone."""
        redis, missing = self._spec.queue.redis, self._found.missing_queue
        if redis.mode is not RedisMode.EXTERNAL or (ref := redis.url_secret_ref) is None:
            return
        field_path, text = "spec.queue.redis.urlSecretRef", contract.SecretForm.TEXT
        if not await self._entry(field_path, ref.name, ref.key, missing, form=text):
            return
        secret = await self._secret(field_path, ref.name, missing)
        usual = SENTINEL_PORT if redis.sentinel is not None else REDIS_PORT
        hosts = () if secret is None else hosts_of(secret.data[ref.key], usual_port=usual)
        if secret is not None:
            self._goes_to_redis(field_path, secret, hosts)
        if redis.sentinel is None or (password := redis.sentinel.password_secret_ref) is None:
            return
        field_path = "spec.queue.redis.sentinel.passwordSecretRef"
        if await self._entry(field_path, password.name, password.key, missing, form=text):
            secret = await self._secret(field_path, password.name, missing)
            if secret is not None:
                self._goes_to_redis(field_path, secret, hosts)

    def _goes_to_redis(self, field_path: str, secret: Secret, hosts: Sequence[str | None]) -> None:
        """Note each host of Redis to which a secret may not be sent. No proxy leads there."""
        for host in hosts:
            if (why := self._world.why_not_sent(secret, host)) is None:
                continue
            if host is None:
                why = UNREADABLE_REDIS
            message = f"{field_path}: the Secret {secret.name!r} is not sent: {why}"
            self._found.missing_queue.append(Missing(reason=Reason.SECRET_FOR_ELSEWHERE, message=message))

    async def _payloads(self) -> None:
        """Look up the credentials of the object store; they may be sent to its URL alone."""
        payloads, missing = self._spec.queue.payloads, self._found.missing_queue
        if payloads is None or (ref := payloads.secret_ref) is None:
            return
        field_path = "spec.queue.payloads.secretRef"
        secret = await self._secret(field_path, ref.name, missing)
        if secret is not None:
            wrong = [said for key in ENTRIES if (said := secret.problem(key)) is not None]
            missing += [
                Missing(reason=Reason.SECRET_KEY_MISSING, message=f"{field_path}: {said}") for said in wrong
            ]
            also = named_proxies(self._spec.gateway.pod.env)
            self._may_be_sent(field_path, secret, endpoint_of(payloads), missing, also_through=also)

    async def _callers(self) -> None:
        auth = self._spec.gateway.auth
        if auth.mode is not AuthMode.SECRET or auth.secret_ref is None:
            return
        missing = self._found.missing_gateway
        field_path = "spec.gateway.auth.secretRef"
        secret = await self._secret(field_path, auth.secret_ref.name, missing)
        if secret is None or not self._may_be_used(field_path, secret, self._me, missing):
            return
        if not secret.holds_a_key():
            missing.append(
                Missing(
                    reason=Reason.SECRET_KEY_MISSING,
                    message=f"spec.gateway.auth.secretRef: the Secret {secret.name!r} holds no token that "
                    "can be sent, so nobody can call the gateway; add an entry for each caller",
                )
            )

    async def _certificate(self) -> None:
        tls, missing = self._spec.gateway.tls, self._found.missing_certificate
        if tls is None:
            return
        field_path = "spec.gateway.tls.secretRef"
        secret = await self._secret(field_path, tls.secret_ref.name, missing)
        if secret is not None and self._may_be_used(field_path, secret, self._me, missing):
            entries = (contract.TLS_ENTRY, contract.TLS_KEY_ENTRY)
            missing += [_no_entry(field_path, secret.name, key) for key in entries if key not in secret.data]

    async def _telemetry(self) -> None:
        """Look up the secret with the headers of traces; it may be sent to their receiver alone.

        One that is missing holds nothing up: the receiver then refuses the traces.
        """
        telemetry, missing = self._spec.telemetry, self._found.missing_workers
        if telemetry is None:
            return
        if (ref := telemetry.headers_secret_ref) is not None:
            field_path = "spec.telemetry.headersSecretRef"
            secret = await self._secret(field_path, ref.name, missing)
            also = named_proxies(self._spec.gateway.pod.env)
            if secret is not None and not self._may_be_sent(
                field_path, secret, telemetry.otlp_endpoint, missing, also_through=also
            ):
                return
        self._found.telemetry = telemetry_config(telemetry)

    def _claims(self) -> bool:
        """Whether workers and executors may mount every claim that their volumes name."""
        wrong = False
        for report, named in (
            (self._found.missing_workers, claims_of_workers(self._spec)),
            (self._found.missing_executors, claims_of_executors(self._spec)),
        ):
            for one in named:
                problem = claim_problem(one, self._namespace, self._me, self._world)
                if problem is not None:
                    reason = Reason.CLAIM_MISSING if problem.is_missing else Reason.CLAIM_FOR_OTHERS
                    report.append(Missing(reason=reason, message=problem.message))
                    wrong = True
        return not wrong

    def _classes(self) -> None:
        found = self._found
        reports = (
            found.missing_queue,
            found.missing_gateway,
            found.missing_workers,
            found.missing_executors,
        )
        for report, classes in zip(reports, classes_by_part(self._spec), strict=True):
            report += [
                Missing(reason=CLASS_MISSING[named.resource], message=named.missing)
                for named in missing_of(classes, self._world.caches)
            ]

    async def _entry(
        self,
        field_path: str,
        name: str,
        key: str,
        missing: list[Missing],
        *,
        to: Sequence[str | None] = (),
        user: User | None = None,
        form: contract.SecretForm = contract.SecretForm.HEADER,
    ) -> bool:
        """Whether a secret has this entry, may be sent to the URLs `to`, and is for `user`, the object whose
        spec names it. What is wrong is added to `missing`.
        """
        secret = await self._secret(field_path, name, missing)
        if secret is None:
            return False
        if (wrong := secret.problem(key, form)) is not None:
            missing.append(Missing(reason=Reason.SECRET_KEY_MISSING, message=f"{field_path}: {wrong}"))
            return False
        if not all(self._may_be_sent(field_path, secret, url, missing) for url in to):
            return False
        if user is not None and not self._may_be_used(field_path, secret, user, missing):
            return False
        self._found.versions.setdefault(name, {})[key] = secret.version(key)
        return True

    def _may_be_sent(
        self,
        field_path: str,
        secret: Secret,
        url: str | None,
        missing: list[Missing],
        *,
        also_through: Sequence[str | None] = (),
    ) -> bool:
        through = (*named_proxies(self._spec.workers.pod.env), *also_through)
        if (why := self._world.why_not_sent(secret, url, through=through)) is None:
            return True
        message = f"{field_path}: the Secret {secret.name!r} is not sent: {why}"
        missing.append(Missing(reason=Reason.SECRET_FOR_ELSEWHERE, message=message))
        return False

    def _may_be_used(self, field_path: str, secret: Secret, user: User, missing: list[Missing]) -> bool:
        if (why := self._world.why_not_mounted(self._namespace, secret, user)) is None:
            return True
        message = f"{field_path}: the Secret {secret.name!r} is not mounted: {why}"
        missing.append(Missing(reason=Reason.SECRET_FOR_OTHERS, message=message))
        return False

    async def _secret(self, field_path: str, name: str, missing: list[Missing]) -> Secret | None:
        secret = await self._world.secret(self._namespace, name)
        if secret is None:
            missing.append(
                Missing(
                    reason=Reason.SECRET_MISSING,
                    message=f"{field_path}: there is no Secret {name!r} in this namespace; create it",
                )
            )
        return secret

    def _key_of(self, role: str, secret: str, key: str) -> str:
        variable = f"{contract.ENV_MODEL_KEY_PREFIX}{role.upper()}"
        self._found.keys.append(SecretEntry(environment=variable, name=secret, key=key))
        return variable


def _no_entry(field_path: str, secret: str, key: str) -> Missing:
    return Missing(
        reason=Reason.SECRET_KEY_MISSING,
        message=f"{field_path}: the Secret {secret!r} has no entry {key!r}; add it",
    )


def _made_for(replica_set: Manifest) -> int | None:
    """The longest sequence that a set's model was made for, once the operator has read it."""
    capacity = (replica_set.get("status") or {}).get("capacity") or {}
    length: int | None = (capacity.get("model") or {}).get("maxModelLen")
    return length


def classes_by_part(spec: AgentFleetSpec) -> tuple[list[NamedClass], ...]:
    """The classes that the spec names for Redis, for the gateway, for the workers and for tool executors."""
    executors = spec.tool_executors
    return (
        list(classes_of("spec.queue.redis.pod", spec.queue.redis.pod)),
        list(classes_of("spec.gateway.pod", spec.gateway.pod)),
        list(classes_of("spec.workers.pod", spec.workers.pod)),
        [] if executors is None else list(classes_of("spec.toolExecutors.pod", executors.pod)),
    )


def claims_of_workers(spec: AgentFleetSpec) -> list[NamedClaim | Unaskable]:
    """The claims that the workers' volumes name."""
    return list(claims_of_volumes("spec.workers.pod.volumes", spec.workers.pod.volumes))


def claims_of_executors(spec: AgentFleetSpec) -> list[NamedClaim | Unaskable]:
    """The claims that the volumes of tool executors name."""
    if spec.tool_executors is None:
        return []
    return list(claims_of_volumes("spec.toolExecutors.pod.volumes", spec.tool_executors.pod.volumes))


def _unsearched(index: Manifest) -> Reason | None:
    """Why an index cannot be searched; None for one that can.

    One that was ready once and is built anew can be searched: its retriever serves the generation before.
    """
    status = index.get("status") or {}
    if status.get("url") is None or status.get("activeGeneration") is None:
        return Reason.INDEX_BUILDING
    never_ready = status.get("phase") == INDEX_PROMOTING
    return Reason.INDEX_STARTING if never_ready or not is_true(index, "RetrieverReady") else None


def _starting(message: str) -> Missing:
    return Missing(reason=Reason.MODEL_STARTING, message=message, mended_by=MendedBy.TIME)


def _why(manifest: Manifest, condition_type: str) -> str:
    """The message of another object's condition, or its reason where it has no message."""
    told: Sequence[str] = [
        str(condition.get("message") or condition.get("reason"))
        for condition in conditions_of(manifest)
        if condition.get("type") == condition_type
    ]
    return told[0] if told else f"it has no condition {condition_type} yet"
