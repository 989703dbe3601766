"""How a model's files come into an engine pod.

A source is one of two things. `hf://organisation/name` is fetched by an init container into the cache: an
emptyDir, a claim that replicas share, or a folder of the node. `pvc://claim/path` lies there already; an init
container then checks that it is whole, so a wrong path is a sentence in the pod's status and not a stack
trace of the engine. The engine itself reads the files read-only and never speaks to the hub.
"""

from dataclasses import dataclass

from flotilla_operator.workloads.labels import Manifest

HUB_SCHEME = "hf://"
CLAIM_SCHEME = "pvc://"
MODELS_DIRECTORY = "/models"
VOLUME = "models"
FETCHER = "fetch-model"
VERIFIER = "verify-model"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSource:
    """A repository of the Hugging Face hub."""

    repository: str
    revision: str | None

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
        return f"{MODELS_DIRECTORY}/{self.folder}" if self.folder else MODELS_DIRECTORY


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


def init_arguments(source: HubSource | ClaimSource) -> list[str]:
    """The arguments of the runtime image's model fetcher."""
    if isinstance(source, ClaimSource):
        return ["flotilla_runtime.models", "--verify", source.path]
    arguments = [
        "flotilla_runtime.models",
        "--source",
        f"{HUB_SCHEME}{source.repository}",
        "--to",
        source.path,
    ]
    return [*arguments, "--revision", source.revision] if source.revision else arguments


def claim_volume(claim: str, *, read_only: bool) -> Manifest:
    """The models volume on a claim."""
    volume: Manifest = {"claimName": claim}
    if read_only:
        volume["readOnly"] = True
    return {"name": VOLUME, "persistentVolumeClaim": volume}
