"""Models fetched with the real hub client from the stub: what works, and every refusal's message."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from flotilla_runtime.contract import ModelFacts
from flotilla_runtime.models.failures import EXIT_STATUS, Reason
from flotilla_runtime.models.files import MARKER, read_marker
from hub_stub.configuration import Configuration
from hub_stub.repositories import Repositories
from hub_stub.server import Hub
from tests.support import hub
from tests.support.fetching import Fetched, run_fetcher, served

pytestmark = pytest.mark.services

WEIGHTS = bytes(range(256)) * 4096  # 1 MiB, so that a cut in the middle is one
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}" * 500,
    "1_Pooling/config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "README.md": b"not needed",
    "pytorch_model.bin": b"not needed either",
}


@dataclass(frozen=True, kw_only=True)
class Stub(hub.Stub):
    """A running stub and the folder under it."""

    root: Path

    def add(self, name: str, files: dict[str, bytes] = FILES) -> None:
        for path, content in files.items():
            (self.root / name / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name / path).write_bytes(content)


CONFIGURATION = Configuration.model_validate(
    {
        "repositories": {
            "org/gated": {"gated": True},
            "org/private": {"private": True},
            "org/tagged": {"revisions": ["main", "v1"]},
        },
        "tokens": {"let-in": ["org/gated", "org/private"], "stranger": []},
    }
)


@pytest.fixture
def stub(tmp_path: Path, unused_tcp_port: int) -> Iterator[Stub]:
    root = tmp_path / "hub"
    root.mkdir()
    with served(Hub(Repositories(root), CONFIGURATION).application(), unused_tcp_port) as url:
        running = Stub(url=url, root=root)
        for name in ("org/open", "org/gated", "org/private", "org/tagged"):
            running.add(name)
        yield running


@pytest.fixture
def fetch(stub: Stub, tmp_path: Path) -> Callable[..., Fetched]:
    """Run the fetcher as the init container does, against the stub."""
    return partial(run_fetcher, stub.url, tmp_path)


def test_a_model_arrives_whole_and_is_fetched_again_only_as_far_as_it_must_be(
    stub: Stub, fetch: Callable[..., Fetched]
) -> None:
    """Without what no engine needs. A second start asks the hub nothing, one behind a file that has become
    short fetches that file, and one for another revision what differs.
    """
    fetched = fetch("hf://org/tagged")
    assert fetched.status == 0, fetched.output
    assert (fetched.folder / "model.safetensors").read_bytes() == WEIGHTS
    assert (fetched.folder / "1_Pooling" / "config.json").exists()
    assert not (fetched.folder / "README.md").exists()
    assert not (fetched.folder / "pytorch_model.bin").exists()
    marker = read_marker(fetched.folder)
    assert marker is not None
    assert marker.source == "hf://org/tagged"
    assert set(marker.sizes) == {
        "config.json",
        "tokenizer.json",
        "1_Pooling/config.json",
        "model.safetensors",
    }

    before = stub.requests()
    again = fetch("hf://org/tagged")
    assert again.status == 0, again.output
    assert stub.requests() == before

    (fetched.folder / "model.safetensors").write_bytes(b"short")
    again = fetch("hf://org/tagged")
    assert again.status == 0, again.output
    assert (fetched.folder / "model.safetensors").read_bytes() == WEIGHTS
    since = stub.requests()[len(before) :]
    bodies = [line for line in since if line.startswith("GET") and "/api/" not in line]
    assert bodies
    assert all("model.safetensors" in line for line in bodies)

    stub.add("org/tagged", {"config.json": b'{"model_type": "other"}'})
    again = fetch("hf://org/tagged", "--revision", "v1")
    assert again.status == 0, again.output
    assert (fetched.folder / "config.json").read_bytes() == b'{"model_type": "other"}'


def test_a_gated_model_opens_with_a_token_that_was_let_in(fetch: Callable[..., Fetched]) -> None:
    assert fetch("hf://org/gated", token="let-in").status == 0
    assert fetch("hf://org/private", token="let-in").status == 0


@pytest.mark.holds(
    "engine.md", "A download that is cut goes on, and a refusal names its reason and the field to mend"
)
@pytest.mark.parametrize(
    ("source", "arguments", "token", "reason", "said"),
    [
        pytest.param(
            "hf://org/nothing", (), None, Reason.REPOSITORY_MISSING, "spec.model.source", id="missing"
        ),
        pytest.param(
            *("hf://org/nothing", (), "let-in", Reason.REPOSITORY_MISSING, "correct the name"),
            id="missing, asked with a token",
        ),
        pytest.param(
            *("hf://org/private", (), None, Reason.REPOSITORY_MISSING, "spec.model.tokenSecretRef"),
            id="private, which looks missing",
        ),
        pytest.param(
            *("hf://org/gated", (), None, Reason.UNAUTHORISED, "spec.model.tokenSecretRef"),
            id="gated, without a token",
        ),
        pytest.param(
            *("hf://org/gated", (), "stranger", Reason.UNAUTHORISED, "no access to it"),
            id="gated, with a token that was not let in",
        ),
        pytest.param(
            *("hf://org/open", (), "forged", Reason.UNAUTHORISED, "not valid"),
            id="a token that the hub does not know",
        ),
        pytest.param(
            *("hf://org/open", ("--revision", "v9"), None, Reason.REVISION_MISSING, "no revision v9"),
            id="no such revision",
        ),
        pytest.param("hf://a/b/c", (), None, Reason.SOURCE_INVALID, "hf://organisation/name", id="no name"),
        pytest.param("hf://../..", (), None, Reason.SOURCE_INVALID, "hf://organisation/name", id="upwards"),
    ],
)
def test_a_refusal_names_its_reason_and_the_field_to_mend(
    fetch: Callable[..., Fetched],
    source: str,
    arguments: tuple[str, ...],
    token: str | None,
    reason: Reason,
    said: str,
) -> None:
    fetched = fetch(source, *arguments, token=token)
    assert fetched.reason == reason, fetched.output
    assert fetched.status == EXIT_STATUS[reason]
    assert said in fetched.message
    assert "\n" not in fetched.message
    assert not (fetched.folder / MARKER).exists()


def test_a_repository_that_holds_no_model_is_refused(stub: Stub, fetch: Callable[..., Fetched]) -> None:
    stub.add("org/data", {"data.parquet": b"rows"})
    assert fetch("hf://org/data").reason == Reason.NOT_A_MODEL


@pytest.mark.holds(
    "engine.md", "A download that is cut goes on, and a refusal names its reason and the field to mend"
)
def test_a_download_that_is_cut_goes_on_where_it_stopped(stub: Stub, fetch: Callable[..., Fetched]) -> None:
    stub.set_faults({"cut": {"file": "model.safetensors", "after_bytes": 400_000, "times": 1}})
    fetched = fetch("hf://org/open")
    assert fetched.status == 0, fetched.output
    assert (fetched.folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_download_that_is_always_cut_fails_and_the_next_start_completes_it(
    stub: Stub, fetch: Callable[..., Fetched]
) -> None:
    stub.set_faults({"cut": {"file": "model.safetensors", "after_bytes": 400_000}})
    fetched = fetch("hf://org/open")
    assert fetched.reason == Reason.DOWNLOAD_FAILED, fetched.output
    assert not (fetched.folder / MARKER).exists()
    stub.set_faults({})
    again = fetch("hf://org/open")
    assert again.status == 0, again.output
    assert (again.folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_hub_that_is_busy_is_asked_again(stub: Stub, fetch: Callable[..., Fetched]) -> None:
    stub.set_faults({"busy": {"times": 1, "status": 500}})
    fetched = fetch("hf://org/open", "--attempts", "3")
    assert fetched.status == 0, fetched.output
    assert "attempt 1 of 3" in fetched.output, stub.requests()


def test_a_hub_that_cannot_be_reached_is_named(
    fetch: Callable[..., Fetched], stub: Stub, tmp_path: Path
) -> None:
    (tmp_path / "models" / "open").mkdir(parents=True)
    (tmp_path / "models" / "open" / "config.json").write_text("left from before")
    stub.set_faults({"busy": {"times": 1000, "status": 502}})
    fetched = fetch("hf://org/open")
    assert fetched.reason == Reason.DOWNLOAD_FAILED, fetched.output
    assert stub.url in fetched.message


def test_a_full_disk_is_told_from_a_broken_network(
    stub: Stub, fetch: Callable[..., Fetched], tmp_path: Path
) -> None:
    """On a file system of half a megabyte, which only the fetcher sees, so that it is gone with it."""
    small = tmp_path / "small"
    small.mkdir()
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mounted = 'mount -t tmpfs -o size=512k tmpfs "$0" && exec "$@"'
    fetched = fetch(
        "hf://org/open",
        to=small / "open",
        under=["unshare", "--mount", *as_root, "sh", "-c", mounted, str(small)],
    )
    assert fetched.reason == Reason.DISK_FULL, fetched.output
    assert "spec.modelCache" in fetched.message


FACTS = "flotilla_runtime.models.facts"


@pytest.mark.holds("capacity.md", "A model is measured before it is fetched")
def test_a_models_size_is_told_before_any_weight_is_fetched(
    stub: Stub, fetch: Callable[..., Fetched]
) -> None:
    told = fetch("hf://org/open", module=FACTS)
    facts = ModelFacts.model_validate_json(told.message)
    assert facts == ModelFacts(config={"model_type": "llama"}, file_bytes=len(WEIGHTS))
    assert not told.folder.exists()
    assert not [line for line in stub.requests() if "model.safetensors" in line]


@pytest.mark.holds(
    "decisions/0011-model-facts.md",
    "Reading them never fails a pod, and a hub that does not answer holds none back",
)
def test_a_hub_that_does_not_answer_holds_no_pod_back(stub: Stub, fetch: Callable[..., Fetched]) -> None:
    stub.set_faults({"busy": {"times": 1000, "status": 502}})
    told = fetch("hf://org/open", module=FACTS)
    assert (told.status, told.message) == (0, ""), told.output


def test_a_gated_models_size_is_told_to_those_who_are_let_in(fetch: Callable[..., Fetched]) -> None:
    assert fetch("hf://org/gated", module=FACTS).message == ""
    assert fetch("hf://org/gated", module=FACTS, token="let-in").message != ""
