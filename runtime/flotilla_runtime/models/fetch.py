"""Fetches a repository of the hub into a folder, and retries after errors that may be temporary.

A folder that is marked complete for the same source and revision is left as it is, even if a branch on the
hub has moved since. So replicas that start later serve the same weights as those that run. When several
replicas want the same folder at the same time, one fetches and the others wait.
"""

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flotilla_runtime.backoff import Backoff, Draw
from flotilla_runtime.models import files, hub, lock
from flotilla_runtime.models.failures import Reason, TransientError
from flotilla_runtime.models.hub import Repository
from flotilla_runtime.models.listing import Hash, Listing, refuse_unsafe

GIB = 1024**3
PROGRESS_SECONDS = 15.0
HASHED_AT_ONCE = 4
BACKOFF = Backoff(base_seconds=2.0, limit_seconds=60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """The number of attempts; `sleep` and `draw` are arguments so that tests need not wait."""

    attempts: int
    sleep: Callable[[float], None] = time.sleep
    draw: Draw = random.uniform


def ensure(repository: Repository, folder: Path, patience: Patience, say: Callable[[str], None]) -> None:
    """Return when the folder holds the whole repository; raises ModelError when that fails."""
    if not _complete(repository, folder):
        try:
            with lock.held(folder, say) as alone:
                files.refuse_links(folder)
                if alone:
                    files.remove_unfinished(folder)
                _fetch_patiently(repository, folder, patience, say)
        except OSError as raised:
            raise hub.not_written(raised, repository) from raised
    say(f"the files of {repository.source} are complete in {folder}")


def _fetch_patiently(
    repository: Repository, folder: Path, patience: Patience, say: Callable[[str], None]
) -> None:
    if _complete(repository, folder):
        return  # another replica fetched the files while this one waited
    checked: dict[str, Hash] = {}
    for attempt in range(1, patience.attempts + 1):
        try:
            _fetch(repository, folder, checked, say)
        except TransientError as failure:
            if attempt == patience.attempts:
                raise
            wait = BACKOFF.seconds_after(attempt, patience.draw)
            say(
                f"attempt {attempt} of {patience.attempts} failed: {failure.problem}; "
                f"the next one starts in {wait:.0f} s"
            )
            patience.sleep(wait)
        else:
            return


def _complete(repository: Repository, folder: Path) -> bool:
    contents = files.read_marker(folder)
    if contents is None:
        return False
    same = (contents.source, contents.requested_revision) == (repository.source, repository.revision)
    return same and not files.wrong_files(folder, contents.sizes)


def _fetch(
    repository: Repository, folder: Path, checked: dict[str, Hash], say: Callable[[str], None]
) -> None:
    """One attempt. What the hub says is checked before anything is deleted or written.

    `checked` has the files whose hash was compared in an earlier attempt.
    """
    listing = hub.list_files(repository)
    files.refuse_what_does_not_fit(repository.source, listing.sizes, repository.shape, repository.field)
    sizes = files.needed(listing.sizes, repository.shape)
    refuse_unsafe(repository.source, sizes, repository.field)
    folder.mkdir(parents=True, exist_ok=True)
    files.remove_marker(folder)
    wrong = _wrong_files(listing, sizes, folder, checked)
    for name in wrong:
        checked.pop(name, None)
        (folder / name).unlink(missing_ok=True)
    missing_bytes = sum(sizes[name] for name in wrong)
    _refuse_without_room(repository, folder, missing_bytes)
    say(
        f"fetching {len(wrong)} of the {len(sizes)} files of {repository.source}, "
        f"{missing_bytes / GIB:.2f} GiB"
    )
    with _progress(folder, sum(sizes.values()), say):
        hub.download(repository, listing, wrong, folder)
    _confirm(repository, sizes, folder)
    _confirm_content(repository, listing, wrong, folder, checked)
    contents = files.Contents(
        source=repository.source,
        requested_revision=repository.revision,
        commit=listing.commit,
        sizes=sizes,
    )
    files.write_marker(folder, contents)
    say(f"fetched {repository.source} at commit {listing.commit[:12]}")


def _wrong_files(
    listing: Listing, sizes: Mapping[str, int], folder: Path, checked: dict[str, Hash]
) -> list[str]:
    """The files to fetch: those that are missing, or have another size or content than the hub lists."""
    wrong = files.wrong_files(folder, sizes)
    there = sorted(sizes.keys() - set(wrong))
    return [*wrong, *_of_other_content(listing, there, folder, checked)]


def _of_other_content(
    listing: Listing, names: Sequence[str], folder: Path, checked: dict[str, Hash]
) -> list[str]:
    """Those of the files whose hash is not the one that the hub lists, if it lists one."""
    wanted = {name: listing.hashes[name] for name in names if name in listing.hashes}
    asked = [name for name, known in wanted.items() if checked.get(name) != known]
    with ThreadPoolExecutor(HASHED_AT_ONCE) as threads:
        same = list(threads.map(lambda name: files.has_content(folder / name, wanted[name]), asked))
    checked.update({name: wanted[name] for name, is_same in zip(asked, same, strict=True) if is_same})
    return [name for name, is_same in zip(asked, same, strict=True) if not is_same]


@contextmanager
def _progress(folder: Path, total_bytes: int, say: Callable[[str], None]) -> Iterator[None]:
    """Print the progress of the download every 15 seconds: a large model takes half an hour."""
    done = threading.Event()

    def tell() -> None:
        while not done.wait(PROGRESS_SECONDS):
            say(f"fetched {files.bytes_in(folder) / GIB:.1f} of {total_bytes / GIB:.1f} GiB")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def _refuse_without_room(repository: Repository, folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise hub.disk_full(
            f"{repository.source} needs {needed_bytes / GIB:.1f} GiB, but only {free / GIB:.1f} GiB are free"
        )


def _confirm(repository: Repository, sizes: Mapping[str, int], folder: Path) -> None:
    wrong = files.wrong_files(folder, sizes)
    if wrong:
        raise TransientError(
            Reason.DOWNLOAD_FAILED,
            field=repository.field,
            problem=f"the fetched file {wrong[0]} of {repository.source} does not have the size that the hub "
            "lists",
            fix="if this persists, the mirror at HF_ENDPOINT may be out of date",
        )


def _confirm_content(
    repository: Repository,
    listing: Listing,
    fetched: Sequence[str],
    folder: Path,
    checked: dict[str, Hash],
) -> None:
    """Remove the fetched files with another content than the hub lists; raises TransientError for them."""
    wrong = _of_other_content(listing, fetched, folder, checked)
    for name in wrong:
        (folder / name).unlink(missing_ok=True)
    if wrong:
        raise TransientError(
            Reason.DOWNLOAD_FAILED,
            field=repository.field,
            problem=f"the fetched file {wrong[0]} of {repository.source} does not have the hash that the hub "
            "lists, and was removed",
            fix="if this persists, the mirror at HF_ENDPOINT gives other files than it lists",
        )
