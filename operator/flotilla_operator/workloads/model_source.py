"""Where the files that an engine reads come from, and where it finds them.

A source is one of two things. `hf://organisation/name` is fetched into the cache: an emptyDir, a claim that
replicas share, or a folder of the node. `pvc://claim/path` lies there already. The model has a source, and so
have the model that guesses for it and its adapters. How they come into the pod: model_files.
"""

from dataclasses import dataclass

from flotilla_operator.api.model_replica_set import Adapter, ModelReplicaSetSpec

HUB_SCHEME = "hf://"
CLAIM_SCHEME = "pvc://"
MODELS_DIRECTORY = "/models"
CLAIMS_DIRECTORY = "/claims"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSource:
    """A repository of the Hugging Face hub."""

    repository: str
    revision: str | None

    @property
    def uri(self) -> str:
        """As it stands in the spec."""
        return f"{HUB_SCHEME}{self.repository}"

    @property
    def path(self) -> str:
        """Where the engine finds it; revisions lie side by side, so a shared cache serves an update and a
        rollback.
        """
        folder = self.repository.replace("/", "--")
        return f"{MODELS_DIRECTORY}/{folder}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimSource:
    """A folder on a claim of the user's."""

    claim: str
    folder: str

    @property
    def path(self) -> str:
        """Where the engine finds it."""
        mounted = claim_directory(self.claim)
        return f"{mounted}/{self.folder}" if self.folder else mounted


def claim_directory(claim: str) -> str:
    """Where a claim is mounted."""
    return f"{CLAIMS_DIRECTORY}/{claim}"


def parse_source(source: str, revision: str | None) -> HubSource | ClaimSource:
    """The source that a URI names; what raises here the API has refused before."""
    if ".." in (*source.split("/"), *(revision or "").split("/")):
        raise ValueError(f"{source!r} at revision {revision!r} leads upwards")
    if source.startswith(HUB_SCHEME):
        return HubSource(repository=source.removeprefix(HUB_SCHEME).strip("/"), revision=revision)
    if source.startswith(CLAIM_SCHEME):
        claim, _, folder = source.removeprefix(CLAIM_SCHEME).partition("/")
        return ClaimSource(claim=claim, folder=folder.strip("/"))
    raise ValueError(f"{source!r} starts with neither {HUB_SCHEME} nor {CLAIM_SCHEME}")


def model_of(spec: ModelReplicaSetSpec) -> HubSource | ClaimSource:
    """The source of the model itself."""
    return parse_source(spec.model.source, spec.model.revision)


def guesser_of(spec: ModelReplicaSetSpec) -> HubSource | ClaimSource | None:
    """The source of what guesses for the model, where guessing needs files."""
    speculative = spec.engine.speculative
    if speculative is None or speculative.model is None:
        return None
    return parse_source(speculative.model, None)


def adapter_of(adapter: Adapter) -> HubSource | ClaimSource:
    """The source of an adapter."""
    return parse_source(adapter.source, adapter.revision)
