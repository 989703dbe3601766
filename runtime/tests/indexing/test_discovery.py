"""Files that are documents, their order, and those that are hopeless at first sight."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.contract import BuildReason, SourceConfig
from flotilla_runtime.indexing.discovery import discover
from flotilla_runtime.indexing.errors import BuildError, DocumentError, DocumentReason
from flotilla_runtime.indexing.globs import compile_glob, selector
from flotilla_runtime.indexing.source_files import opened


def source(root: Path, *include: str, exclude: tuple[str, ...] = ()) -> SourceConfig:
    return SourceConfig(
        root=str(root), uri="pvc://docs", include=include, exclude=exclude, max_document_mib=1
    )


def write(root: Path, *paths: str) -> None:
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("text")


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        pytest.param("**/*.html", "a.html", True, id="** may be no folder at all"),
        pytest.param("**/*.html", "x/y/a.html", True, id="** may be many folders"),
        pytest.param("*.html", "x/a.html", False, id="* stays in its folder"),
        pytest.param("drafts/**", "drafts/x/a", True, id="a folder with all below"),
        pytest.param("drafts/**", "draft", False, id="another name"),
        pytest.param("a?.[ch]", "ab.c", True, id="one letter, one of a set"),
        pytest.param("a?.[!ch]", "ab.c", False, id="none of a set"),
        pytest.param("a.b", "aXb", False, id="a dot is a dot"),
        pytest.param("[z-a].md", "[z-a].md", True, id="a range that goes backwards is its own text"),
        pytest.param("[z-a].md", "b.md", False, id="and matches nothing else"),
        pytest.param("[!]", "[!]", True, id="a set of nothing is its own text"),
    ],
)
def test_patterns_mean_what_git_users_expect(pattern: str, path: str, matches: bool) -> None:
    assert bool(compile_glob(pattern).fullmatch(path)) is matches


SETS = st.builds("[{}{}-{}]".format, st.sampled_from(["", "!", "^"]), st.characters(), st.characters())
SIGNS = st.text(max_size=20) | SETS | st.text(alphabet="[]!^-\\*?/.az", max_size=8)


@given(SIGNS, SIGNS)
def test_any_pattern_can_be_asked_and_excludes_what_it_includes(pattern: str, path: str) -> None:
    assert selector([], [pattern])(path) is not selector([pattern], [])(path)


def test_documents_come_sorted_and_chosen(tmp_path: Path) -> None:
    write(tmp_path, "b.html", "a/z.html", "a/notes.txt", "drafts/x.html")
    found = discover(source(tmp_path, "**/*.html", exclude=("drafts/**",)))
    assert [document.path for document in found.documents] == ["a/z.html", "b.html"]


def test_a_mounted_config_map_is_seen_once(tmp_path: Path) -> None:
    write(tmp_path, "..2026_05_01/page.md")
    (tmp_path / "..data").symlink_to("..2026_05_01")
    (tmp_path / "page.md").symlink_to("..data/page.md")
    assert [document.path for document in discover(source(tmp_path)).documents] == ["page.md"]


HOPELESS = {
    "caf\\xe9.txt": DocumentReason.BAD_NAME,
    "dangling.txt": DocumentReason.UNREADABLE,
    "empty.txt": DocumentReason.EMPTY,
    "huge.txt": DocumentReason.TOO_LARGE,
    "outside.txt": DocumentReason.OUTSIDE_SOURCE,
    "pipe.txt": DocumentReason.UNREADABLE,
}


def test_the_hopeless_are_dead_letters_at_once(tmp_path: Path) -> None:
    root = tmp_path / "source"
    write(root, "good.txt")
    (root / "empty.txt").touch()
    with (root / "huge.txt").open("wb") as huge:
        huge.truncate(100 * 1024 * 1024)
    write(tmp_path, "secret.txt")
    (root / "outside.txt").symlink_to(tmp_path / "secret.txt")
    (root / "dangling.txt").symlink_to("nowhere")
    os.mkfifo(root / "pipe.txt")
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.txt")).write_text("text")
    found = discover(source(root))
    assert [document.path for document in found.documents] == ["good.txt"]
    assert {letter.document: letter.reason for letter in found.dead_letters} == HOPELESS
    assert found.found == len(HOPELESS) + 1


@pytest.mark.holds("security.md", "A file is checked once it is open")
@pytest.mark.attack("A file of the source is exchanged for a link to another file of the pod")
@pytest.mark.parametrize("exchanged", ["page.md", "folder"])
def test_a_file_that_was_exchanged_after_it_was_found_leads_nowhere(exchanged: str, tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    write(root, "page.md", "folder/page.md")
    write(elsewhere, "page.md")
    found = [document.path for document in discover(source(root)).documents]
    assert found == ["folder/page.md", "page.md"]
    (root / exchanged).rename(tmp_path / "before")
    (root / exchanged).symlink_to(elsewhere / "page.md" if exchanged == "page.md" else elsewhere)
    path = next(path for path in found if path.startswith(exchanged))
    with pytest.raises(DocumentError) as refused, opened(root, path):
        pass
    assert refused.value.reason is DocumentReason.OUTSIDE_SOURCE


def test_a_pipe_in_the_place_of_a_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "page.md")
    with pytest.raises(DocumentError, match="not a regular file"), opened(tmp_path, "page.md"):
        pass


@pytest.mark.holds("security.md", "A file is checked once it is open")
def test_a_link_within_the_source_is_followed(tmp_path: Path) -> None:
    write(tmp_path, "folder/page.md")
    (tmp_path / "link.md").symlink_to("folder/page.md")
    with opened(tmp_path, "link.md") as file:
        assert file.read() == b"text"


def deny_listing(monkeypatch: pytest.MonkeyPatch, denied: Path) -> None:
    """As for a user; a test that runs as root may list everything."""
    list_folder = os.scandir

    def as_a_user(folder: str) -> object:
        if str(folder) == str(denied):
            raise PermissionError(13, "Permission denied", folder)
        return list_folder(folder)

    monkeypatch.setattr(os, "scandir", as_a_user)


def test_lost_and_found_at_the_top_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "page.md", "lost+found/inode", "deep/lost+found/page.md")
    deny_listing(monkeypatch, tmp_path / "lost+found")
    found = discover(source(tmp_path))
    assert [document.path for document in found.documents] == ["deep/lost+found/page.md", "page.md"]


def test_a_link_to_a_folder_is_a_dead_letter_unless_it_is_excluded(tmp_path: Path) -> None:
    root = tmp_path / "source"
    write(root, "manual/page.md")
    (root / "latest").symlink_to("manual")
    (root / "round").symlink_to(".")
    found = discover(source(root, "**/*.md", exclude=("round/**",)))
    assert [document.path for document in found.documents] == ["manual/page.md"]
    [letter] = found.dead_letters
    assert (letter.document, letter.reason) == ("latest", "Unreadable")
    assert "link to a folder" in letter.message


@pytest.mark.parametrize(
    ("root", "reason"),
    [
        pytest.param("nowhere", BuildReason.PATH_MISSING, id="no such folder"),
        pytest.param("empty", BuildReason.SOURCE_EMPTY, id="an empty folder"),
        pytest.param("denied", BuildReason.SOURCE_UNREADABLE, id="a folder that may not be listed"),
    ],
)
def test_without_documents_there_is_no_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str, reason: BuildReason
) -> None:
    write(tmp_path, "denied/page.md")
    deny_listing(monkeypatch, tmp_path / "denied")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BuildError) as refused:
        discover(source(tmp_path / root, "**/*.md"))
    assert refused.value.reason is reason
    assert refused.value.message.startswith("spec.source.path: ")
