"""Downloads from the Hugging Face hub, or from a mirror named by HF_ENDPOINT, and explains its errors.

The revision is resolved to a commit first, and all files are fetched from that commit, so a push during a
download cannot mix two versions. When the hub cannot be reached, huggingface_hub accepts any folder that
exists. Therefore the sizes that the hub lists are compared after every download.

The client makes paths from the names of files, which `listing` checks before, and from two headers of the
hub's answers, which are checked here.
"""

import errno
import logging
import os
import resource
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_download, set_client_factory
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from flotilla_runtime.contract.failure_texts import shown_address, what_failed
from flotilla_runtime.models.failures import (
    CACHE,
    REVISION,
    SOURCE,
    TOKEN,
    ModelError,
    Reason,
    TransientError,
)
from flotilla_runtime.models.hub_source import hub_source
from flotilla_runtime.models.listing import Listing, listed
from flotilla_runtime.models.shapes import MODEL, Shape

METADATA_TIMEOUT_SECONDS = 30.0
logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # with HF_DEBUG it writes down requests
DOWNLOADS_AT_ONCE = 8
# What the client may write beside the files: its own notes on each of them.
NOTES_LIMIT_BYTES = 64 * 1024**2
# The client makes paths from the values of these headers.
HEADERS_IN_PATHS = ("ETag", "X-Linked-ETag", "X-Repo-Commit")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository on the hub, and the field in which the user named it."""

    name: str
    revision: str | None
    token: str | None = None
    field: str = SOURCE
    shape: Shape = MODEL

    @property
    def source(self) -> str:
        """The repository as written in the spec."""
        return hub_source(self.name)


def list_files(repository: Repository) -> Listing:
    """Resolve the revision and list its files; raises ModelError."""
    try:
        info = HfApi(token=repository.token or False).model_info(
            repository.name,
            revision=repository.revision,
            timeout=METADATA_TIMEOUT_SECONDS,
            files_metadata=True,
        )
    except Exception as raised:
        raise explained(raised, repository) from raised
    return listed(repository.source, info.sha, info.siblings or (), repository.field)


def download(repository: Repository, listing: Listing, names: Sequence[str], folder: Path) -> None:
    """Download the named files, which the folder does not have and whose names are safe; raises ModelError.

    No file gets larger than the largest one that the hub lists: an answer without an end would else fill the
    disk, which in a folder of the node is everybody's.
    """

    def one(name: str) -> None:
        hf_hub_download(
            repository.name,
            name,
            revision=listing.commit,
            local_dir=folder,
            token=repository.token or False,
            etag_timeout=METADATA_TIMEOUT_SECONDS,
        )

    largest = max((listing.sizes.get(name, 0) for name in names), default=0)
    set_client_factory(_client)
    try:
        with _no_file_above(largest + NOTES_LIMIT_BYTES), ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as threads:
            for _ in threads.map(one, names):
                pass
    except Exception as raised:
        raise explained(raised, repository) from raised


@contextmanager
def _no_file_above(limit_bytes: int) -> Iterator[None]:
    """While the block runs, the kernel refuses to let a file of this process grow beyond the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    known = [limit for limit in (limit_bytes, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(known), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _client() -> httpx2.Client:
    return httpx2.Client(
        event_hooks={"response": [_refuse_paths_of_files]},
        follow_redirects=True,
        timeout=None,
    )


def _refuse_paths_of_files(answer: httpx2.Response) -> None:
    """The client asks by HEAD for what it needs to know of a file."""
    if answer.request.method == "HEAD":
        refuse_paths(answer.headers)


class BadHeaderError(ValueError):
    """A header of the hub's answer is not used."""


def refuse_paths(headers: Mapping[str, str]) -> None:
    """Raise BadHeaderError for an answer with a path in a header from which the client makes one."""
    for name in HEADERS_IN_PATHS:
        value = headers.get(name, "").strip().removeprefix("W/")
        if "/" in value or "\0" in value:
            raise BadHeaderError(f"the hub's header {name} has a path in it")


def explained(raised: Exception, repository: Repository) -> ModelError:
    """The error of the hub's client as one that a person can act on."""
    return _explained_refusal(raised, repository) or _explained_trouble(raised, repository)


def _explained_refusal(raised: Exception, repository: Repository) -> ModelError | None:
    source = repository.source
    if isinstance(raised, HFValidationError):
        return ModelError(
            Reason.SOURCE_INVALID,
            field=repository.field,
            problem=f"{source} is not a valid name of a repository",
            fix=f"write {hub_source('organisation/name')}",
        )
    if isinstance(raised, GatedRepoError):
        return _unauthorised(repository, f"access to {source} is restricted (a gated repository)")
    if isinstance(raised, RepositoryNotFoundError):
        hint = "" if repository.token else f", or set {TOKEN} if the repository is private"
        return ModelError(
            Reason.REPOSITORY_MISSING,
            field=repository.field,
            problem=f"there is no repository {source} at {shown_address(constants.ENDPOINT)}",
            fix=f"correct the name{hint}",
        )
    if isinstance(raised, RevisionNotFoundError):
        return ModelError(
            Reason.REVISION_MISSING,
            field=REVISION if repository.field == SOURCE else repository.field,
            problem=f"{source} has no revision {repository.revision}",
            fix="name one of its branches, tags or commits",
        )
    if isinstance(raised, DisabledRepoError):
        return ModelError(
            Reason.REPOSITORY_MISSING,
            field=repository.field,
            problem=f"{source} has been disabled on the hub",
            fix="choose another model",
        )
    if isinstance(raised, HfHubHTTPError) and raised.response.status_code in {401, 403}:
        return _unauthorised(repository, f"the hub refused access to {source}")
    return None


def _unauthorised(repository: Repository, problem: str) -> ModelError:
    if repository.token:
        said, fix = "the token is not valid or has no access to it", "replace the token in the Secret of"
    else:
        said, fix = "no token was sent", "accept the model's terms and name a Secret with your token in"
    return ModelError(
        Reason.UNAUTHORISED, field=TOKEN, problem=f"{problem}, and {said}", fix=f"{fix} {TOKEN}"
    )


def _explained_trouble(raised: Exception, repository: Repository) -> ModelError:
    if isinstance(raised, OSError) and raised.errno in (*DISK_FULL, *DENIED):
        return not_written(raised, repository)
    at = shown_address(constants.ENDPOINT)
    return TransientError(
        Reason.DOWNLOAD_FAILED,
        field=repository.field,
        problem=f"{repository.source} could not be fetched from {at}: {what_failed(raised)}",
        fix="check that the pod can reach the hub (proxy, network policy, HF_ENDPOINT)",
    )


def not_written(raised: OSError, repository: Repository) -> ModelError:
    """The error for a folder to which the model could not be written."""
    said = os.strerror(raised.errno) if raised.errno else type(raised).__name__
    if raised.errno in DISK_FULL:
        return disk_full(f"the disk became full while {repository.source} was fetched ({said})")
    if raised.errno in DENIED:
        return ModelError(
            Reason.FOLDER_UNWRITABLE,
            field=CACHE,
            problem=f"{raised.filename or repository.source} cannot be written by user {os.getuid()}, "
            f"group {os.getgid()}: {said}",
            fix="make the claim or the node's folder writable for this group, or name another one",
        )
    return ModelError(
        Reason.FOLDER_FAILED,
        field=CACHE,
        problem=f"writing {raised.filename or repository.source} failed: {said}",
        fix="check the volume of the claim or the disk of the node, or name another one",
    )


def disk_full(problem: str) -> ModelError:
    """The error for a disk without enough space for the model."""
    return ModelError(
        Reason.DISK_FULL,
        field=CACHE,
        problem=problem,
        fix="use a larger claim, or a node with a larger disk",
    )
