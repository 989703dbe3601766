"""When an image counts as changed. Building and running them is tested in test_local_cluster_images.py."""

from pathlib import Path

import pytest

from local_cluster.buildah import pip_options
from local_cluster.images import Image

BASE = "localhost/base:1"


@pytest.fixture
def image(tmp_path: Path) -> Image:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "code.py").write_text("print(1)\n")
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return Image(name="one", dockerfile=tmp_path / "Dockerfile", context=tmp_path, paths=("package",))


@pytest.mark.holds("local-cluster.md", "An image's tag is the hash of what went into it")
def test_the_same_files_give_the_same_tag(image: Image) -> None:
    assert image.reference(BASE) == image.reference(BASE)
    assert image.reference(BASE).startswith("localhost/flotilla-one:")


def test_byte_code_and_files_outside_the_paths_change_nothing(image: Image) -> None:
    before = image.key(BASE)
    (image.context / "package" / "__pycache__").mkdir()
    (image.context / "package" / "__pycache__" / "code.pyc").write_bytes(b"1")
    (image.context / "notes.txt").write_text("outside")
    assert image.key(BASE) == before


@pytest.mark.holds("local-cluster.md", "An image's tag is the hash of what went into it")
@pytest.mark.parametrize("changed", ["package/code.py", "Dockerfile"])
def test_a_changed_file_changes_the_tag(image: Image, changed: str) -> None:
    before = image.key(BASE)
    (image.context / changed).write_text("FROM other\n")
    assert image.key(BASE) != before


@pytest.mark.holds("local-cluster.md", "An image's tag is the hash of what went into it")
def test_another_base_changes_the_tag(image: Image) -> None:
    assert image.key(BASE) != image.key("localhost/base:2")


def test_the_context_holds_the_paths_and_nothing_else(image: Image, tmp_path: Path) -> None:
    (image.context / "notes.txt").write_text("outside")
    folder = tmp_path / "staged"
    image.stage(folder)
    assert [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()] == [
        Path("package/code.py")
    ]


@pytest.mark.holds("local-cluster.md", "The machine's pip settings end up in no image")
def test_only_pips_sources_go_into_a_build() -> None:
    environment = {
        "PIP_INDEX_URL": "https://mirror.example/simple",
        "PIP_CERT": "/host/ca.crt",
        "PIP_REQUIRE_VIRTUALENV": "1",
        "PIP_EMPTY": "",
        "HOME": "/root",
    }
    assert pip_options(environment) == {"index-url": "https://mirror.example/simple"}
