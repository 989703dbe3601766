"""Secrets, claims and classes that a spec names and that may be missing."""

from dataclasses import dataclass

from flotilla_operator.api.model_replica_set import CacheMode, ModelReplicaSetSpec
from flotilla_operator.controllers.controller import Secret, World
from flotilla_operator.controllers.missing import Missing
from flotilla_operator.controllers.model_replica_set.observe.accelerator_in_limits import (
    accelerator_in_limits,
)
from flotilla_operator.controllers.model_replica_set.observe.devices import wrong_device_class
from flotilla_operator.controllers.model_replica_set.observe.engine_room import no_room_to_offload
from flotilla_operator.controllers.model_replica_set.observe.parsed_sets import ParsedSet
from flotilla_operator.controllers.model_replica_set.observe.priority import wrong_class
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.mounted_claims import (
    NamedClaim,
    Unaskable,
    claim_problem,
    claims_of_volumes,
)
from flotilla_operator.controllers.pod_classes import NamedClass, classes_of, missing_of, runtime_class
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import (
    MODEL_REPLICA_SETS,
    PRIORITY_CLASSES,
    RUNTIME_CLASSES,
)
from flotilla_operator.objects.used_by import User
from flotilla_operator.workloads.model_files import wanted_files
from flotilla_operator.workloads.model_source import ClaimSource
from flotilla_operator.workloads.node_cache import known_hub_url
from flotilla_operator.workloads.proxies import named_proxies
from flotilla_runtime import contract

CLASS_MISSING = {
    PRIORITY_CLASSES: Reason.PRIORITY_CLASS_MISSING,
    RUNTIME_CLASSES: Reason.RUNTIME_CLASS_MISSING,
}


async def missing_references(
    seen: ParsedSet, world: World, *, older: ModelReplicaSetSpec | None = None
) -> tuple[Missing, ...]:
    """List the objects that the spec names and that do not exist or cannot be used.

    After a roll-back pods are made from an `older` spec, so its Secrets and claims are looked at too.
    """
    owner = Owner.of(MODEL_REPLICA_SETS.kind, seen.manifest)
    found: list[Missing] = []
    for spec in (seen.spec, older):
        if spec is not None:
            found += await _kept_from(spec, owner, world)
    found = list(dict.fromkeys(found))
    if (wrong := wrong_class(seen.spec, world.caches.listed(PRIORITY_CLASSES))) is not None:
        found.append(wrong)
    found += [
        Missing(reason=CLASS_MISSING[named.resource], message=named.missing)
        for named in missing_of(class_references(seen.spec), world.caches)
    ]
    if (wrong := wrong_device_class(seen.spec, world.caches)) is not None:
        found.append(wrong)
    if (no_room := no_room_to_offload(seen.spec)) is not None:
        found.append(no_room)
    if (unused := accelerator_in_limits(seen.spec)) is not None:
        found.append(unused)
    return tuple(found)


async def _kept_from(spec: ModelReplicaSetSpec, owner: Owner, world: World) -> list[Missing]:
    """The Secrets and claims of a spec that its pods cannot have."""
    found = [
        missing
        for wanted in secret_references(spec)
        if (missing := await _missing_secret(wanted, owner, world)) is not None
    ]
    user = User(kind=owner.kind, name=owner.name)
    for named in claim_references(spec):
        if (problem := claim_problem(named, owner.namespace, user, world)) is not None:
            reason = Reason.CLAIM_MISSING if problem.is_missing else Reason.CLAIM_FOR_OTHERS
            found.append(Missing(reason=reason, message=problem.message))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretWanted:
    """A secret that the spec names. It must have all of `keys`.

    With no `keys`, each entry is a caller's key: there may be none yet, but not only ones that
    nobody can send.

    With `is_sent`, its values are sent to the URL `to`, which is None where it is not known, and `through`
    the proxies of the spec. Otherwise pods only mount it, so it must be for this set.
    """

    field: str
    name: str
    keys: tuple[str, ...]
    is_sent: bool = False
    to: str | None = None
    through: tuple[str | None, ...] = ()


def secret_references(spec: ModelReplicaSetSpec) -> list[SecretWanted]:
    """The secrets that a set needs before its pods can start."""
    wanted = []
    if (token := spec.model.token_secret_ref) is not None:
        wanted.append(
            SecretWanted(
                field="spec.model.tokenSecretRef",
                name=token.name,
                keys=(token.key,),
                is_sent=True,
                to=known_hub_url(spec),
                through=named_proxies(spec.engine.env),
            )
        )
    if (auth := spec.router.auth_secret_ref) is not None:
        wanted.append(SecretWanted(field="spec.router.authSecretRef", name=auth.name, keys=()))
    if (tls := spec.router.tls) is not None:
        wanted.append(
            SecretWanted(
                field="spec.router.tls.secretRef",
                name=tls.secret_ref.name,
                keys=(contract.TLS_ENTRY, contract.TLS_KEY_ENTRY),
            )
        )
    return wanted


def class_references(spec: ModelReplicaSetSpec) -> list[NamedClass]:
    """The classes that pods of a set get, except the PriorityClass of its engines."""
    return [
        *runtime_class("spec.pod", spec.pod.runtime_class_name),
        *classes_of("spec.router.pod", spec.router.pod),
    ]


def claim_references(spec: ModelReplicaSetSpec) -> list[NamedClaim | Unaskable]:
    """The claims that a set mounts, with the fields that name them."""
    wanted = wanted_files(spec)
    claims: list[NamedClaim | Unaskable] = [
        NamedClaim(field=each.field, name=each.source.claim)
        for each in wanted
        if isinstance(each.source, ClaimSource)
    ]
    fetches = len(claims) < len(wanted)
    if fetches and spec.model_cache.mode is CacheMode.CLAIM and spec.model_cache.claim_name is not None:
        claims.append(NamedClaim(field="spec.modelCache.claimName", name=spec.model_cache.claim_name))
    return [*claims, *claims_of_volumes("spec.pod.volumes", spec.pod.volumes)]


async def _missing_secret(wanted: SecretWanted, owner: Owner, world: World) -> Missing | None:
    secret = await world.secret(owner.namespace, wanted.name)
    if secret is None:
        return Missing(
            reason=Reason.SECRET_MISSING,
            message=f"{wanted.field}: there is no Secret {wanted.name!r} in this namespace; create it",
        )
    absent = [key for key in wanted.keys if key not in secret.data]
    asked = absent or (wanted.keys if wanted.is_sent else ())
    wrong = next((said for key in asked if (said := secret.problem(key)) is not None), None)
    if wrong is None:
        if (kept_back := _kept_back(wanted, secret, owner, world)) is not None:
            return kept_back
        if wanted.keys or not secret.data or secret.holds_a_key():
            return None
        wrong = (
            f"no entry of the Secret {secret.name!r} holds a key that can be sent, so nobody can call the "
            "model; add an entry for each caller"
        )
    return Missing(reason=Reason.SECRET_KEY_MISSING, message=f"{wanted.field}: {wrong}")


def _kept_back(wanted: SecretWanted, secret: Secret, owner: Owner, world: World) -> Missing | None:
    """A secret that may not be sent where the spec would send it, or that the set may not use."""
    if not wanted.is_sent:
        why = world.why_not_mounted(owner.namespace, secret, User(kind=owner.kind, name=owner.name))
        if why is None:
            return None
        message = f"{wanted.field}: the Secret {wanted.name!r} is not mounted: {why}"
        return Missing(reason=Reason.SECRET_FOR_OTHERS, message=message)
    why = world.why_not_sent(secret, wanted.to, through=wanted.through)
    if why is None:
        return None
    message = f"{wanted.field}: the Secret {wanted.name!r} is not sent: {why}"
    return Missing(reason=Reason.SECRET_FOR_ELSEWHERE, message=message)
