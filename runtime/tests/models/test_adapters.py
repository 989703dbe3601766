"""Files that make a folder or a repository an adapter, and the check of its rank against the spec's."""

import json
from pathlib import Path
from typing import Any

import pytest

from flotilla_runtime.contract import EngineFiles, FilesRole
from flotilla_runtime.models import files
from flotilla_runtime.models.__main__ import main
from flotilla_runtime.models.failures import EXIT_STATUS, ModelError, Reason
from flotilla_runtime.models.shapes import ADAPTER, SHAPES

FIELD = "spec.engine.adapters[sql]"


def adapter_folder(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 16, **config}))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def test_every_role_has_a_shape() -> None:
    assert set(SHAPES) == set(FilesRole)


@pytest.mark.holds(
    "engine.md", "Adapters are in PEFT's form and are fetched or checked before the engine starts"
)
def test_of_a_repository_only_the_finished_adapter_is_needed() -> None:
    repository = {
        "adapter_config.json": 1,
        "adapter_model.safetensors": 10,
        "checkpoint-500/adapter_model.safetensors": 10,
        "checkpoint-500/optimizer.pt": 20,
        "tokenizer.json": 1,
    }
    assert set(files.needed(repository, ADAPTER)) == {"adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.holds(
    "engine.md", "Adapters are in PEFT's form and are fetched or checked before the engine starts"
)
@pytest.mark.parametrize(
    ("sizes", "missing"),
    [
        pytest.param(
            {"config.json": 1, "model.safetensors": 1},
            "adapter_config.json",
            id="a model instead of an adapter",
        ),
        pytest.param({"adapter_config.json": 1, "adapter_model.bin": 1}, "safetensors", id="pickled weights"),
    ],
)
def test_a_repository_without_an_adapter_is_refused(sizes: dict[str, int], missing: str) -> None:
    with pytest.raises(ModelError, match=f"no {missing}") as refused:
        files.refuse_what_does_not_fit("hf://a/b", sizes, ADAPTER, FIELD)
    assert (refused.value.reason, refused.value.field) == (Reason.NOT_AN_ADAPTER, FIELD)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({}, id="the rank the spec says"),
        pytest.param({"r": 4, "rank_pattern": {"q_proj": 16}}, id="a lower one, and as much for one module"),
        pytest.param({"rank_pattern": None}, id="no pattern"),
    ],
)
def test_an_adapter_of_that_rank_or_less_is_taken(tmp_path: Path, config: dict[str, Any]) -> None:
    files.verify_rank(adapter_folder(tmp_path / "sql", **config), 16, FIELD)


@pytest.mark.holds(
    "engine.md", "A rank that is too low is refused with `RankTooHigh` and the number to write"
)
@pytest.mark.parametrize(
    ("config", "reason", "message"),
    [
        pytest.param(
            {"r": 64},
            Reason.RANK_TOO_HIGH,
            "RankTooHigh: the adapter in sql has rank 64, but the field says 16; set it to 64 "
            "(spec.engine.adapters[sql].rank)",
            id="a higher rank",
        ),
        pytest.param(
            {"rank_pattern": {"q_proj": 32}},
            Reason.RANK_TOO_HIGH,
            "RankTooHigh: the adapter in sql has rank 32, but the field says 16; set it to 32 "
            "(spec.engine.adapters[sql].rank)",
            id="a higher rank for one module",
        ),
        pytest.param(
            {"r": None},
            Reason.NOT_AN_ADAPTER,
            "NotAnAdapter: adapter_config.json in sql has no rank r; name an adapter in PEFT's format "
            "(spec.engine.adapters[sql])",
            id="no rank",
        ),
    ],
)
def test_another_adapter_is_refused_with_the_field_and_the_fix(
    tmp_path: Path, config: dict[str, Any], reason: Reason, message: str
) -> None:
    with pytest.raises(ModelError) as refused:
        files.verify_rank(adapter_folder(tmp_path / "sql", **config), 16, FIELD)
    assert refused.value.reason is reason
    assert str(refused.value) == message


def also(folder: Path, highest_rank: int) -> str:
    wanted = EngineFiles(role=FilesRole.ADAPTER, field=FIELD, folder=str(folder), highest_rank=highest_rank)
    return wanted.model_dump_json(by_alias=True)


@pytest.mark.holds(
    "engine.md", "Adapters are in PEFT's form and are fetched or checked before the engine starts"
)
@pytest.mark.parametrize(
    ("highest_rank", "status"),
    [
        pytest.param(16, 0, id="both are there"),
        pytest.param(8, EXIT_STATUS[Reason.RANK_TOO_HIGH], id="the adapter does not fit"),
    ],
)
def test_the_command_checks_the_model_and_then_the_adapters(
    tmp_path: Path, highest_rank: int, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    adapter = adapter_folder(tmp_path / "sql")
    log = str(tmp_path / "log")
    arguments = ["--verify", str(model), "--also", also(adapter, highest_rank), "--termination-log", log]
    assert main(arguments) == status
    assert (
        f"the folder {model} holds a model\nthe folder {adapter} holds a LoRA adapter\n"
        == capsys.readouterr().out
    )
