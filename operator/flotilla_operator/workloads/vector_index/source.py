"""The place of the documents, as `spec.source.path` names it and as the pods of a build mount it."""

from dataclasses import dataclass

from flotilla_operator.objects.resources import Manifest
from flotilla_runtime import contract

CLAIM_SCHEME = "pvc://"
CONFIG_MAP_SCHEME = "configmap://"


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentSource:
    """The place of the documents: a folder of a claim, or a ConfigMap."""

    claim: str | None = None
    config_map: str | None = None
    folder: str = ""

    @property
    def root(self) -> str:
        """The path of the documents in the build's pods."""
        return f"{contract.SOURCE_DIRECTORY}/{self.folder}" if self.folder else contract.SOURCE_DIRECTORY

    @property
    def volume(self) -> Manifest:
        """The volume with the documents, read-only."""
        if self.claim is not None:
            claim = {"claimName": self.claim, "readOnly": True}
            return {"name": "source", "persistentVolumeClaim": claim}
        return {"name": "source", "configMap": {"name": self.config_map}}


def document_source(path: str) -> DocumentSource:
    """The source that `spec.source.path` names; the API refuses other schemes."""
    if path.startswith(CONFIG_MAP_SCHEME):
        return DocumentSource(config_map=path.removeprefix(CONFIG_MAP_SCHEME).strip("/"))
    claim, _, folder = path.removeprefix(CLAIM_SCHEME).partition("/")
    return DocumentSource(claim=claim, folder=folder.strip("/"))
