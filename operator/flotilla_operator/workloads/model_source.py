"""The sources of the files that an engine reads, and their paths in its pod.

There are two kinds of sources. `hf://organisation/name` is fetched into the cache: an emptyDir, a claim that
replicas share, or a folder of the node. `pvc://claim/path` is a folder that already exists. The model, its
draft model for speculative decoding, and its adapters each have a source. model_files makes the volumes.
"""

from dataclasses import dataclass

from flotilla_operator.api.model_replica_set import Adapter, ModelReplicaSetSpec

HUB_SCHEME = "hf://"
CLAIM_SCHEME = "pvc://"
MODELS_DIRECTORY = "/models"
CLAIMS_DIRECTORY = "/claims"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSource:
    """A repository on the Hugging Face hub."""

    repository: str
    revision: str | None

    @property
    def uri(self) -> str:
        """The source as written in the spec."""
        return f"{HUB_SCHEME}{self.repository}"

    @property
    def path(self) -> str:
        """The path in the engine's pod. Each revision has its own folder, so that a shared cache serves both
        an update and a rollback.
        """
        folder = self.repository.replace("/", "--")
        return f"{MODELS_DIRECTORY}/{folder}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimSource:
    """A folder on a claim of the user."""

    claim: str
    folder: str

    @property
    def path(self) -> str:
        """The path in the engine's pod."""
        mounted = claim_directory(self.claim)
        return f"{mounted}/{self.folder}" if self.folder else mounted


def claim_directory(claim: str) -> str:
    """The path at which a claim is mounted."""
    return f"{CLAIMS_DIRECTORY}/{claim}"


def parse_source(source: str, revision: str | None) -> HubSource | ClaimSource:
    """The source that a URI names. Raises ValueError only for sources that the API refuses anyway."""
    if ".." in (*source.split("/"), *(revision or "").split("/")):
        raise ValueError(f"{source!r} at revision {revision!r} leads upwards")
    if source.startswith(HUB_SCHEME):
        return HubSource(repository=source.removeprefix(HUB_SCHEME).strip("/"), revision=revision)
    if source.startswith(CLAIM_SCHEME):
        claim, _, folder = source.removeprefix(CLAIM_SCHEME).partition("/")
        return ClaimSource(claim=claim, folder=folder.strip("/"))
    raise ValueError(f"{source!r} starts with neither {HUB_SCHEME} nor {CLAIM_SCHEME}")


def model_of(spec: ModelReplicaSetSpec) -> HubSource | ClaimSource:
    """The source of the set's model."""
    return parse_source(spec.model.source, spec.model.revision)


def guesser_of(spec: ModelReplicaSetSpec) -> HubSource | ClaimSource | None:
    """The source of the draft model for speculative decoding, if the method needs one."""
    speculative = spec.engine.speculative
    if speculative is None or speculative.model is None:
        return None
    return parse_source(speculative.model, None)


def adapter_of(adapter: Adapter) -> HubSource | ClaimSource:
    """The source of an adapter."""
    return parse_source(adapter.source, adapter.revision)
