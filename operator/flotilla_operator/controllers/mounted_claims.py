"""The claims that a spec names, and why pods of an object may not mount one.

The annotation `flotilla.dev/used-by` of a claim lists who may. The claim of a managed Redis or Milvus is for
its own pod alone: no annotation lets another one in, because whoever mounts it reads and writes all of it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flotilla_operator.controllers.controller import World
from flotilla_operator.objects.resources import PERSISTENT_VOLUME_CLAIMS, Manifest, Reference
from flotilla_operator.objects.used_by import ANNOTATION, Used, User
from flotilla_runtime import contract

STORES: Final = {"redis": "Redis", "milvus": "Milvus"}  # components whose claims are for their own pod alone
SOURCES: Final = ("dataSource", "dataSourceRef")


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedClaim:
    """A claim that a field names. `copied`: a new claim begins as a copy of it."""

    field: str
    name: str
    copied: bool = False

    def reference(self, namespace: str) -> Reference:
        """The reference by which a change of the claim wakes the object."""
        return Reference(PERSISTENT_VOLUME_CLAIMS, namespace, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unaskable:
    """Content that a field would have copied into a volume, and that no annotation of a claim allows."""

    field: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimProblem:
    """Why a claim is not mounted: it `is_missing`, or it is for others."""

    is_missing: bool
    message: str


def claims_of_volumes(path: str, volumes: Iterable[Manifest]) -> Iterator[NamedClaim | Unaskable]:
    """The claims that volumes at a path mount, or that they copy. Their form is the user's."""
    for volume in volumes:
        here = f"{path}[{volume.get('name')}]"
        mounted = _mapping(volume.get("persistentVolumeClaim")).get("claimName")
        if isinstance(mounted, str) and mounted:
            yield NamedClaim(field=f"{here}.persistentVolumeClaim.claimName", name=mounted)
        template = _mapping(_mapping(volume.get("ephemeral")).get("volumeClaimTemplate"))
        for source in SOURCES:
            if copied := _mapping(_mapping(template.get("spec")).get(source)):
                yield _copied(f"{here}.ephemeral.volumeClaimTemplate.spec.{source}", copied)


def claim_problem(
    named: NamedClaim | Unaskable, namespace: str, user: User, world: World
) -> ClaimProblem | None:
    """Why pods of this object may not mount what a field names; None where they may."""
    if isinstance(named, Unaskable):
        return _not_asked(named) if world.config.restrict.enabled else None
    claim = world.caches.get(PERSISTENT_VOLUME_CLAIMS, namespace, named.name)
    if claim is None:
        problem = f"there is no PersistentVolumeClaim {named.name!r} in this namespace; create it"
        return ClaimProblem(is_missing=True, message=f"{named.field}: {problem}")
    why = _why_ours(claim) or world.why_not_used(_used(claim), user)
    if why is None:
        return None
    what = "copied" if named.copied else "mounted"
    message = f"{named.field}: the PersistentVolumeClaim {named.name!r} is not {what}: {why}"
    return ClaimProblem(is_missing=False, message=message)


def _used(claim: Manifest) -> Used:
    metadata = claim["metadata"]
    annotation = (metadata.get("annotations") or {}).get(ANNOTATION)
    return Used(
        resource=PERSISTENT_VOLUME_CLAIMS,
        namespace=metadata["namespace"],
        name=metadata["name"],
        annotation=annotation,
    )


def _why_ours(claim: Manifest) -> str | None:
    labels = claim["metadata"].get("labels") or {}
    store = STORES.get(labels.get(contract.LABEL_COMPONENT, ""))
    if store is None or labels.get(contract.LABEL_MANAGED_BY) != contract.MANAGED_BY:
        return None
    whose = f"{labels.get(contract.LABEL_OWNER_KIND)} {labels.get(contract.LABEL_OWNER_NAME)}"
    return f"it holds the {store} of {whose}, and only the pod of that may mount it; name another claim"


def _copied(field: str, source: Mapping[str, Any]) -> NamedClaim | Unaskable:
    kind, name = source.get("kind"), source.get("name")
    is_claim = kind == PERSISTENT_VOLUME_CLAIMS.kind and not source.get("apiGroup")
    if is_claim and isinstance(name, str) and name and not source.get("namespace"):
        return NamedClaim(field=field, name=name, copied=True)
    return Unaskable(field=field, what=f"{kind} {name!r}")


def _not_asked(named: Unaskable) -> ClaimProblem:
    message = (
        f"{named.field}: nothing says whether this object may use {named.what}; with restrict.enabled a "
        "volume can begin only as a copy of a PersistentVolumeClaim of this namespace that lists the object "
        f"in {ANNOTATION}; remove the field"
    )
    return ClaimProblem(is_missing=False, message=message)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
