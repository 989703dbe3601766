"""Files that count, and folders that are whole. The download itself is in e2e/tests/test_hub_stub.py."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.models import files
from flotilla_runtime.models.__main__ import main
from flotilla_runtime.models.failures import EXIT_STATUS, ModelError, Reason
from flotilla_runtime.models.hub_source import hub_name, hub_source


def model_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def contents(sizes: dict[str, int]) -> files.Contents:
    return files.Contents(source="hf://a/b", requested_revision=None, commit="c" * 40, sizes=sizes)


def test_only_what_an_engine_opens_is_needed() -> None:
    repository = {
        "config.json": 1,
        "model-00001-of-00002.safetensors": 10,
        "model-00002-of-00002.safetensors": 10,
        "model.safetensors.index.json": 1,
        "tokenizer.model": 1,
        "1_Pooling/config.json": 1,
        "merges.txt": 1,
        "chat_template.jinja": 1,
        "consolidated.safetensors": 20,
        "pytorch_model.bin": 20,
        "original/consolidated.00.pth": 20,
        "original/params.json": 1,
        "onnx/model.onnx": 20,
        "README.md": 1,
        ".gitattributes": 1,
        "modeling_custom.py": 1,
    }
    left_out = set(repository) - set(files.needed(repository))
    assert left_out == {
        "consolidated.safetensors",
        "pytorch_model.bin",
        "original/consolidated.00.pth",
        "original/params.json",
        "onnx/model.onnx",
        "README.md",
        ".gitattributes",
        "modeling_custom.py",
    }


def test_weights_that_exist_in_one_form_only_are_needed() -> None:
    assert "consolidated.safetensors" in files.needed({"consolidated.safetensors": 1, "params.json": 1})


@pytest.mark.parametrize(
    ("sizes", "missing"),
    [
        pytest.param({"model.safetensors": 1}, "config.json", id="weights alone"),
        pytest.param({"config.json": 1, "model.gguf": 1}, "safetensors", id="another form of weights"),
    ],
)
def test_a_repository_without_a_model_is_refused(sizes: dict[str, int], missing: str) -> None:
    with pytest.raises(ModelError, match=f"hf://a/b has no {missing}") as refused:
        files.refuse_what_does_not_fit("hf://a/b", sizes)
    assert refused.value.reason is Reason.NOT_A_MODEL


@given(st.dictionaries(st.sampled_from(["a", "b/c", "d.json"]), st.integers(0, 50)))
def test_a_marker_says_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, sizes: dict[str, int]
) -> None:
    folder = tmp_path_factory.mktemp("model")
    for name, size in sizes.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x" * size)
    files.write_marker(folder, contents(sizes))
    assert files.read_marker(folder) == contents(sizes)
    assert files.wrong_files(folder, sizes) == []
    assert [path.name for path in folder.glob(f"{files.MARKER}*")] == [files.MARKER]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param('{"source": "hf://a', id="cut off"),
        pytest.param("[]", id="another thing"),
    ],
)
def test_a_marker_that_cannot_be_read_claims_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / files.MARKER).write_text(text)
    assert files.read_marker(tmp_path) is None


def test_a_folder_with_a_model_is_accepted(tmp_path: Path) -> None:
    files.verify(model_folder(tmp_path / "m"))


def cut_off(folder: Path) -> None:
    files.write_marker(model_folder(folder), contents({"config.json": 2, "model.safetensors": 100}))


def unreadable(folder: Path) -> None:
    (model_folder(folder) / "secret").touch()


def with_only(*names: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        folder.mkdir()
        for name in names:
            (folder / name).touch()

    return make


@pytest.mark.parametrize(
    ("make", "reason", "names"),
    [
        pytest.param(lambda _: None, Reason.FOLDER_MISSING, "llama", id="no such folder"),
        pytest.param(with_only(), Reason.FOLDER_EMPTY, "llama", id="nothing in it"),
        pytest.param(
            with_only(".lost+found"), Reason.FOLDER_EMPTY, "llama", id="only what the file system put there"
        ),
        pytest.param(
            with_only("model.safetensors"), Reason.NOT_A_MODEL, r"no config\.json", id="no configuration"
        ),
        pytest.param(with_only("config.json"), Reason.NOT_A_MODEL, "no weights", id="no weights"),
        pytest.param(
            unreadable,
            Reason.FOLDER_UNREADABLE,
            r"secret .* cannot be read by user",
            id="a file that this user may not read",
        ),
        pytest.param(
            cut_off,
            Reason.INCOMPLETE,
            r"model\.safetensors",
            id="a file that is shorter than its marker says",
        ),
    ],
)
def test_a_folder_that_cannot_be_served_is_refused_with_its_reason(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], object],
    reason: Reason,
    names: str,
) -> None:
    make(tmp_path / "llama")
    monkeypatch.setattr("os.access", lambda path, _mode: path.name != "secret")
    with pytest.raises(ModelError, match=names) as refused:
        files.verify(tmp_path / "llama")
    assert (refused.value.reason, refused.value.field) == (reason, "spec.model.source")


def test_the_program_leaves_its_reason_as_termination_message(tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    status = main(["--verify", str(tmp_path / "gone"), "--termination-log", str(log)])
    assert status == EXIT_STATUS[Reason.FOLDER_MISSING]
    message = log.read_text()
    assert message.startswith("FolderMissing: ")
    assert "\n" not in message


def test_a_source_of_another_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--source", "s3://bucket/model", "--to", str(tmp_path)])
    assert status == EXIT_STATUS[Reason.SOURCE_INVALID]
    assert "hf://organisation/name" in capsys.readouterr().err


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("s3://bucket/model", id="another scheme"),
        pytest.param("organisation/name", id="a name alone"),
        pytest.param("pvc://claim/hf://folder", id="the scheme amid the text"),
    ],
)
def test_a_source_of_another_kind_names_no_repository(source: str) -> None:
    assert hub_name(source) is None


@given(st.text())
def test_a_source_names_the_repository_that_it_was_written_for(name: str) -> None:
    assert hub_name(hub_source(name)) == name


def test_a_marker_is_json_that_people_can_read(tmp_path: Path) -> None:
    files.write_marker(tmp_path, contents({"config.json": 2}))
    marker = json.loads((tmp_path / files.MARKER).read_text())
    assert marker["sizes"] == {"config.json": 2}
