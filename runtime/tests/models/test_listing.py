"""Lists of a hub, and the names in them that are of files. With a server: e2e/tests/test_bad_hub.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.models import hub
from flotilla_runtime.models.failures import ModelError, Reason
from flotilla_runtime.models.files import has_content
from flotilla_runtime.models.listing import SIZE_UNKNOWN, Hash, listed, refuse_unsafe, wrong_with

SHA256 = "a" * 64
BLOB = "b" * 40


@dataclass(kw_only=True)
class File:
    rfilename: Any = "config.json"
    size: Any = 2
    blob_id: Any = None
    lfs: Any = None


@dataclass
class Lfs:
    sha256: Any


@pytest.mark.holds(
    "engine.md",
    "A list with a name that leads elsewhere, twice the same name or no size is refused before "
    "anything is deleted or written",
)
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        pytest.param("config.json", None, id="a file"),
        pytest.param("1_Pooling/config.json", None, id="a file in a folder"),
        pytest.param("a b (1).json", None, id="blanks"),
        pytest.param("モデル.json", None, id="letters of another script"),
        pytest.param("..config.json", None, id="dots in a name"),
        pytest.param("a" * 235 + ".json", None, id="as long as may be"),
        pytest.param("/etc/passwd.json", "absolute", id="absolute"),
        pytest.param("//x.json", "absolute", id="two slashes"),
        pytest.param("../x.json", "upwards", id="upwards"),
        pytest.param("x/../../y.json", "upwards", id="upwards on the way"),
        pytest.param("x/..", "upwards", id="upwards at the end"),
        pytest.param("", "empty", id="nothing"),
        pytest.param("a//b.json", "empty", id="an empty part"),
        pytest.param("a/", "empty", id="a folder"),
        pytest.param("./a.json", "empty", id="the folder itself"),
        pytest.param("a\\b.json", "characters", id="a backslash"),
        pytest.param("a\0.json", "characters", id="NUL"),
        pytest.param("a\n.json", "characters", id="a new line"),
        pytest.param("a\x1b[31m.json", "characters", id="a terminal's command"),
        pytest.param("a\u202egnp.json", "characters", id="the other way round"),
        pytest.param("\ud800.json", "characters", id="half a character"),
        pytest.param("a" * 236 + ".json", "long", id="a part that is too long"),
        pytest.param("é" * 130 + ".json", "long", id="a part with too many bytes"),
        pytest.param("/".join(["abcd"] * 220), "long", id="too many parts"),
    ],
)
def test_a_name(name: str, problem: str | None) -> None:
    found = wrong_with(name)
    assert (found is None) == (problem is None)
    assert problem is None or problem in str(found)


@given(st.text(alphabet=st.sampled_from("a./\\\0\n"), max_size=12))
def test_a_name_that_is_let_through_stays_below_the_folder(name: str) -> None:
    if wrong_with(name) is None:
        path = Path("/models/m", name)
        assert path.resolve().is_relative_to("/models/m")
        assert path != Path("/models/m")


@pytest.mark.holds(
    "engine.md",
    "A list with a name that leads elsewhere, twice the same name or no size is refused before "
    "anything is deleted or written",
)
@pytest.mark.parametrize(
    ("files", "reason"),
    [
        pytest.param([File(rfilename=7)], Reason.LISTING_REFUSED, id="a number for a name"),
        pytest.param([File(), File()], Reason.LISTING_REFUSED, id="a name twice"),
        pytest.param([File(rfilename="/x.json")], Reason.LISTING_REFUSED, id="an absolute name"),
        pytest.param(
            [File(rfilename="a.json"), File(rfilename="a.json/b/c.json")],
            Reason.LISTING_REFUSED,
            id="a file that is a folder of another",
        ),
        pytest.param([File(size=None)], Reason.LISTING_REFUSED, id="no size"),
        pytest.param([File(size=-1)], Reason.LISTING_REFUSED, id="a size below nothing"),
        pytest.param([File(size=1.5)], Reason.LISTING_REFUSED, id="half a byte"),
        pytest.param([File(size=True)], Reason.LISTING_REFUSED, id="a size that is no number"),
        pytest.param([File(), File(rfilename="a/config.json")], None, id="one name in two folders"),
        pytest.param([File(size=0)], None, id="an empty file"),
    ],
)
def test_a_list_is_refused_or_not(files: list[File], reason: Reason | None) -> None:
    refused = refusal_of(files)
    assert (refused and refused.reason) == reason
    assert "\n" not in str(refused)
    assert len(str(refused)) < 400


def refusal_of(files: list[File]) -> ModelError | None:
    try:
        refuse_unsafe("hf://a/b", listed("hf://a/b", "c", files).sizes)
    except ModelError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("file", "known"),
    [
        pytest.param(File(), None, id="none"),
        pytest.param(File(blob_id=BLOB), Hash(digest=BLOB, of_blob=True), id="of a small file"),
        pytest.param(
            File(blob_id=BLOB, lfs=Lfs(SHA256)), Hash(digest=SHA256, of_blob=False), id="of a large file"
        ),
        pytest.param(File(blob_id=BLOB, lfs=Lfs(None)), None, id="of the pointer to a large file"),
        pytest.param(File(blob_id="abc"), None, id="too short"),
        pytest.param(File(blob_id=7), None, id="a number"),
    ],
)
def test_the_hash_that_counts(file: File, known: Hash | None) -> None:
    assert listed("hf://a/b", "c", [file]).hashes.get("config.json") == known


def test_what_is_no_size_is_none_known() -> None:
    assert listed("hf://a/b", "c", [File(size="2")]).sizes == {"config.json": SIZE_UNKNOWN}


@pytest.mark.holds(
    "engine.md", "A fetched file whose hash is not the listed one is removed, and fetched again"
)
@pytest.mark.parametrize(
    "known",
    [
        pytest.param(
            Hash(digest="ce013625030ba8dba906f756967f9e9ca394464a", of_blob=True), id="`git hash-object`"
        ),
        pytest.param(
            Hash(digest="5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03", of_blob=False),
            id="`sha256sum`",
        ),
    ],
)
def test_a_content_has_its_hash_and_no_other(known: Hash, tmp_path: Path) -> None:
    path = tmp_path / "hello"
    path.write_text("hello\n")
    assert has_content(path, known)
    path.write_text("hellO\n")
    assert not has_content(path, known)


@pytest.mark.parametrize("header", hub.HEADERS_IN_PATHS)
def test_headers_of_which_the_client_makes_paths(header: str) -> None:
    hub.refuse_paths({})
    for sound in (f'"{BLOB}"', f'W/"{BLOB}"'):
        hub.refuse_paths({header: sound})
    for path in ('"x/../../y"', 'W/"x/y"', "/x"):
        with pytest.raises(ValueError, match=header):
            hub.refuse_paths({header: path})
