"""A hub that means harm, or is broken: the real fetcher and the hub's real client against a real server.

Beside the model's folder lies another model, as on a claim or in a folder of a node that replicas share. What
a hub says never reaches it. The same rules as tables: runtime/tests/models/test_listing.py.
"""

import hashlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from flotilla_runtime.models.failures import Reason
from flotilla_runtime.models.files import MARKER
from leaks.planted import planted
from tests.support.fetching import Fetched, run_fetcher, served

HUSH = planted("hush")

pytestmark = pytest.mark.services

SOURCE = "hf://org/model"
COMMIT = "c" * 40
CONFIG = b'{"model_type": "llama"}'
WEIGHTS = bytes(range(256)) * 64
OTHERS = b"weights of another model"
MUCH = 200 * 1024**2
LIMIT = 80 * 1024**2


def blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def listed(name: str, content: bytes = b"{}", **told: Any) -> dict[str, Any]:
    """A file in the hub's list."""
    return {"rfilename": name, "size": len(content), "blobId": blob(content), **told}


def large(name: str, content: bytes, **told: Any) -> dict[str, Any]:
    """A file of Git LFS in the hub's list, of which the blob is a pointer."""
    digest = hashlib.sha256(content).hexdigest()
    lfs = {"size": len(content), "sha256": digest, "oid": digest, "pointerSize": 135, **told}
    return listed(name, content, blobId=blob(b"pointer"), lfs=lfs)


HONEST = [listed("config.json", CONFIG), large("model.safetensors", WEIGHTS)]


@dataclass(kw_only=True)
class BadHub:
    """A hub that lists what it is told to, and answers with what it is told to."""

    siblings: list[dict[str, Any]] = field(default_factory=lambda: deepcopy(HONEST))
    contents: dict[str, bytes] = field(
        default_factory=lambda: {"config.json": CONFIG, "model.safetensors": WEIGHTS}
    )
    headers: dict[str, str] = field(default_factory=dict)
    endless: bool = False
    sent: int = 0
    downloads: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/api/models/org/model", self._model)
        application.router.add_get("/api/models/org/model/tree/{revision}", self._tree)
        application.router.add_get("/api/models/org/model/{more:.+}", self._model)
        application.router.add_get("/org/model/resolve/{revision}/{file:.+}", self._resolve)
        return application

    async def _model(self, request: web.Request) -> web.Response:
        self.authorizations.append(request.headers.get("Authorization"))
        return web.json_response(
            {"id": "org/model", "modelId": "org/model", "sha": COMMIT, "siblings": self.siblings}
        )

    async def _tree(self, _: web.Request) -> web.Response:
        told = ({"oid": "", **file, "type": "file", "path": file["rfilename"]} for file in self.siblings)
        return web.json_response(list(told))

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["file"]
        content = self.contents.get(name, b"{}")
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{blob(content)}"', **self.headers}
        if request.method == "GET":
            self.downloads.append(name)
            if self.endless:
                return await self._send_without_end(request)
        return web.Response(body=content, headers=headers)

    async def _send_without_end(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        piece = bytes(1024**2)
        while self.sent < MUCH:
            await answer.write(piece)
            self.sent += len(piece)
        return answer


@pytest.fixture
def hub() -> BadHub:
    return BadHub()


@pytest.fixture
def fetch(hub: BadHub, tmp_path: Path, unused_tcp_port: int) -> Iterator[Callable[[], Fetched]]:
    """Run the fetcher; a folder beside the model's has another model."""
    other = tmp_path / "models" / "other"
    other.mkdir(parents=True)
    (other / "config.json").write_bytes(OTHERS)
    with served(hub.application(), unused_tcp_port) as url:
        yield lambda: run_fetcher(url, tmp_path, SOURCE)
    assert [path.name for path in other.iterdir()] == ["config.json"], "nothing was written there"
    assert (other / "config.json").read_bytes() == OTHERS, "nothing was deleted or overwritten"


def test_what_an_honest_hub_lists_arrives(hub: BadHub, fetch: Callable[[], Fetched]) -> None:
    fetched = fetch()
    assert fetched.status == 0, fetched.output
    assert (fetched.folder / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.holds(
    "engine.md",
    "A list with a name that leads elsewhere, twice the same name or no size is refused before "
    "anything is deleted or written",
)
@pytest.mark.holds("security.md", "A hub's names, sizes, hashes and endless answers reach no other model")
@pytest.mark.attack("A hub lists `/etc/passwd` or `x/../../y` as a file")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("x/../../other/config.json", id="upwards"),
        pytest.param("{other}/config.json", id="absolute"),
        pytest.param("a\\..\\b.json", id="backslashes"),
        pytest.param("a\0.json", id="NUL"),
        pytest.param("a\n.json", id="a new line"),
        pytest.param("\ud800.json", id="half a character"),
        pytest.param(f"{'a' * 300}.json", id="too long for a file system"),
        pytest.param("config.json/x.json", id="below a file"),
        pytest.param("config.json", id="listed twice"),
    ],
)
def test_a_name_that_is_none_is_refused_before_anything_is_changed(
    name: str, hub: BadHub, fetch: Callable[[], Fetched], tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "model"
    folder.mkdir()
    (folder / "config.json").write_text("of an older revision")
    hub.siblings.append(listed(name.format(other=tmp_path / "models" / "other")))
    fetched = fetch()
    assert fetched.reason == Reason.LISTING_REFUSED, fetched.output
    assert "\n" not in fetched.message
    assert hub.downloads == []
    assert (folder / "config.json").read_text() == "of an older revision"
    assert [path.name for path in folder.iterdir()] == ["config.json"]


@pytest.mark.attack("A token with a line break or of another encoding stands in a condition")
@pytest.mark.parametrize(
    ("token", "says"),
    [
        pytest.param(f"{HUSH}\nX-Evil: 1", "a line break", id="a line break in it"),
        pytest.param(f"{HUSH}\x01", "control character", id="a control character"),
        pytest.param(f"{HUSH}é", "not ASCII", id="UTF-8"),
        pytest.param(f"{HUSH}\udcff", "no text in UTF-8", id="latin-1"),
        pytest.param(HUSH * 3_000, "too long", id="72,000 characters"),
        pytest.param(" \n", "is empty", id="nothing"),
    ],
)
@pytest.mark.parametrize("module", ["flotilla_runtime.models", "flotilla_runtime.models.facts"])
def test_a_token_that_no_header_can_have_is_told_and_not_quoted(
    token: str, says: str, module: str, hub: BadHub, tmp_path: Path, unused_tcp_port: int
) -> None:
    with served(hub.application(), unused_tcp_port) as url:
        fetched = run_fetcher(url, tmp_path, SOURCE, token=token, module=module)
    assert "hush" not in fetched.output + fetched.message
    assert hub.authorizations == []
    if module == "flotilla_runtime.models":
        assert fetched.reason == Reason.UNAUTHORISED
        assert "the environment variable HF_TOKEN" in fetched.message
        assert says in fetched.message
        assert "spec.model.tokenSecretRef" in fetched.message


@pytest.mark.parametrize("token", [f"{HUSH}\n", f" {HUSH}\r\n"], ids=["a line break", "spaces"])
def test_a_line_break_at_the_end_of_the_token_does_not_count(
    token: str, hub: BadHub, tmp_path: Path, unused_tcp_port: int
) -> None:
    with served(hub.application(), unused_tcp_port) as url:
        fetched = run_fetcher(url, tmp_path, SOURCE, token=token)
    assert fetched.status == 0, fetched.output
    assert set(hub.authorizations) == {f"Bearer {HUSH}"}


@pytest.mark.holds(
    "engine.md",
    "A list with a name that leads elsewhere, twice the same name or no size is refused before "
    "anything is deleted or written",
)
@pytest.mark.parametrize(
    "size",
    [pytest.param(None, id="none"), pytest.param("1", id="a text"), pytest.param(-1, id="below nothing")],
)
def test_a_file_without_a_size_is_refused(size: Any, hub: BadHub, fetch: Callable[[], Fetched]) -> None:
    hub.siblings[0]["size"] = size
    assert fetch().reason == Reason.LISTING_REFUSED
    assert hub.downloads == []


@pytest.mark.holds(
    "engine.md", "A fetched file whose hash is not the listed one is removed, and fetched again"
)
@pytest.mark.holds("security.md", "A hub's names, sizes, hashes and endless answers reach no other model")
@pytest.mark.attack("A hub sends other content than it lists, or never ends")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("config.json", CONFIG.replace(b"llama", b"LLAMA"), id="a small file, by Git's hash"),
        pytest.param("model.safetensors", WEIGHTS[::-1], id="a large file, by SHA-256"),
    ],
)
def test_a_file_of_the_right_size_and_another_content_is_removed(
    name: str, content: bytes, hub: BadHub, fetch: Callable[[], Fetched]
) -> None:
    honest, hub.contents[name] = hub.contents[name], content
    fetched = fetch()
    assert fetched.reason == Reason.DOWNLOAD_FAILED, fetched.output
    assert name in fetched.message
    assert "hash" in fetched.message
    assert not (fetched.folder / name).exists()
    assert not (fetched.folder / MARKER).exists()
    hub.contents[name], before = honest, len(hub.downloads)
    again = fetch()
    assert again.status == 0, again.output
    assert hub.downloads[before:] == [name], "only this file is fetched again"


@pytest.mark.holds(
    "engine.md", "A fetched file whose hash is not the listed one is removed, and fetched again"
)
def test_a_file_that_is_there_with_another_content_is_fetched_again(
    hub: BadHub, fetch: Callable[[], Fetched], tmp_path: Path
) -> None:
    """As one that a fetcher left which was killed before it had looked at the hash."""
    folder = tmp_path / "models" / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(WEIGHTS[::-1])
    fetched = fetch()
    assert fetched.status == 0, fetched.output
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.holds("engine.md", "A hub that lists no hashes is held to its sizes")
def test_a_hub_that_gives_no_hashes_is_held_to_its_sizes(hub: BadHub, fetch: Callable[[], Fetched]) -> None:
    """As some mirrors: the fetcher goes on without hashes, and never without sizes."""
    hub.siblings = [{"rfilename": file["rfilename"], "size": file["size"]} for file in HONEST]
    hub.contents["model.safetensors"] = WEIGHTS[:-1]
    assert "size" in fetch().message
    hub.contents["model.safetensors"] = WEIGHTS
    fetched = fetch()
    assert fetched.status == 0, fetched.output


@pytest.mark.holds("engine.md", "No file grows beyond the largest one that is listed")
@pytest.mark.holds("security.md", "A hub's names, sizes, hashes and endless answers reach no other model")
@pytest.mark.attack("A hub sends other content than it lists, or never ends")
def test_an_answer_without_an_end_fills_no_disk(hub: BadHub, fetch: Callable[[], Fetched]) -> None:
    hub.endless = True
    fetched = fetch()
    assert fetched.reason == Reason.DOWNLOAD_FAILED, fetched.output
    assert hub.sent < MUCH, "the fetcher hung up"
    assert sum(path.stat().st_size for path in fetched.folder.rglob("*") if path.is_file()) < LIMIT


@pytest.mark.holds("security.md", "A hub's names, sizes, hashes and endless answers reach no other model")
@pytest.mark.parametrize("header", ["ETag", "X-Linked-ETag", "X-Repo-Commit"])
def test_a_header_that_leads_elsewhere_is_refused(
    header: str, hub: BadHub, fetch: Callable[[], Fetched]
) -> None:
    hub.headers[header] = '"x/../../../../../other/config"'
    fetched = fetch()
    assert fetched.reason == Reason.DOWNLOAD_FAILED, fetched.output
    assert header in fetched.message
    assert hub.downloads == []


@pytest.mark.holds("engine.md", "A folder that is or has a symbolic link is refused with `FolderLinked`")
@pytest.mark.parametrize(
    "link",
    [
        pytest.param("model", id="the folder itself"),
        pytest.param("model/config.json", id="a file"),
        pytest.param("model/1_Pooling", id="a folder in it"),
        pytest.param("model/.cache", id="where the client keeps its notes"),
    ],
)
def test_a_link_in_the_folder_is_not_followed(
    link: str, hub: BadHub, fetch: Callable[[], Fetched], tmp_path: Path
) -> None:
    hub.siblings.append(listed("1_Pooling/config.json"))
    path = tmp_path / "models" / link
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(tmp_path / "models" / "other")
    fetched = fetch()
    assert fetched.reason == Reason.FOLDER_LINKED, fetched.output
    assert str(path) in fetched.message
    assert path.is_symlink()
