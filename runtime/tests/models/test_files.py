"""Which files count, and when a folder is whole. The download itself is in e2e/tests/test_hub_stub.py."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.models import files
from flotilla_runtime.models.__main__ import main
from flotilla_runtime.models.failures import EXIT_STATUS, ModelError, Reason
from flotilla_runtime.models.fetch import Patience


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
    with pytest.raises(ModelError, match=f"hf://a/b holds no {missing}") as refused:
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


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        pytest.param(None, Reason.FOLDER_MISSING, id="no such folder"),
        pytest.param([], Reason.FOLDER_EMPTY, id="nothing in it"),
        pytest.param([".lost+found"], Reason.FOLDER_EMPTY, id="only what the file system put there"),
        pytest.param(["model.safetensors"], Reason.NOT_A_MODEL, id="no configuration"),
        pytest.param(["config.json"], Reason.NOT_A_MODEL, id="no weights"),
    ],
)
def test_a_folder_without_a_model_is_refused_with_its_reason(
    tmp_path: Path, made: list[str] | None, reason: Reason
) -> None:
    folder = tmp_path / "llama"
    if made is not None:
        folder.mkdir()
        for name in made:
            (folder / name).touch()
    with pytest.raises(ModelError, match="llama") as refused:
        files.verify(folder)
    assert refused.value.reason is reason
    assert refused.value.field == "spec.model.source"


def test_a_file_that_is_shorter_than_its_marker_says_is_found(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    files.write_marker(folder, contents({"config.json": 2, "model.safetensors": 100}))
    with pytest.raises(ModelError, match=r"model\.safetensors") as refused:
        files.verify(folder)
    assert refused.value.reason is Reason.INCOMPLETE


def test_a_file_that_this_user_may_not_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(tmp_path / "m")
    monkeypatch.setattr("os.access", lambda path, _mode: path.name != "model.safetensors")
    with pytest.raises(ModelError, match=r"model.safetensors .* cannot be read by user") as refused:
        files.verify(folder)
    assert refused.value.reason is Reason.FOLDER_UNREADABLE


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


def test_every_reason_has_a_status_of_its_own() -> None:
    assert len(set(EXIT_STATUS.values())) == len(Reason)
    assert 0 not in EXIT_STATUS.values()


def test_waits_double_up_to_a_limit() -> None:
    patience = Patience(attempts=4, first_wait_seconds=2, longest_wait_seconds=10, jitter=lambda: 1.0)
    assert [patience.wait_seconds(failed) for failed in (1, 2, 3, 4)] == [2, 4, 8, 10]


def test_a_marker_is_json_that_people_can_read(tmp_path: Path) -> None:
    files.write_marker(tmp_path, contents({"config.json": 2}))
    marker = json.loads((tmp_path / files.MARKER).read_text())
    assert marker["sizes"] == {"config.json": 2}
