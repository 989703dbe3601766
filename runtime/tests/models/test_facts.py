"""Facts read from a model's files, and how they are left for the operator. Against the hub:
e2e/tests/test_hub_stub.py.
"""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from engine.models import EMBEDDER, GENERATOR, ensure_models
from flotilla_runtime import contract
from flotilla_runtime.models import facts
from flotilla_runtime.models.__main__ import main

CONFIG = {"model_type": "llama", "hidden_size": 8, "architectures": ["LlamaForCausalLM"], "rope_theta": 1e4}


def safetensors(**tensors: tuple[str, int]) -> bytes:
    """A file with tensors of a type and so many bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": [size], "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


def with_header(text: str) -> bytes:
    """A file with this where its header should be."""
    return struct.pack("<Q", len(text)) + text.encode()


def with_entry(**entry: Any) -> bytes:
    """A file with one tensor, told in this way."""
    return with_header(json.dumps({"a": entry}))


def model_folder(folder: Path, config: Any = CONFIG, weights: bytes = b"") -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(weights or safetensors(a=("F32", 64), b=("BF16", 8)))
    return folder


def left(log: Path) -> contract.ModelFacts:
    return contract.ModelFacts.model_validate_json(log.read_text())


@pytest.mark.holds(
    "capacity.md",
    "Layers, heads and widths come from the model's own `config.json`, read by an init container",
)
@pytest.mark.holds(
    "decisions/0011-model-facts.md",
    "The facts are under 4,096 bytes and leave out what memory does not follow from",
)
def test_only_what_memory_follows_from_is_told() -> None:
    config = {
        "text_config": {"hidden_size": 8, "pad_token_id": 0},
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "mlp_only_layers": [0, 1],
        "quantization_config": {"quant_method": "awq", "bits": 4, "modules_to_not_convert": ["lm_head"]},
        "id2label": {str(number): "x" * 100 for number in range(1000)},
    }
    assert facts.told(config) == {
        "text_config": {"hidden_size": 8},
        "layer_types": {"sliding_attention": 2, "full_attention": 1},
        "mlp_only_layers": [0, 1],
        "quantization_config": {"quant_method": "awq", "bits": 4},
    }


@pytest.mark.holds(
    "decisions/0011-model-facts.md", "For `pvc://` the container that checks the folder leaves them"
)
def test_a_folder_that_is_whole_is_told_when_it_has_been_checked(tmp_path: Path) -> None:
    weights = safetensors(a=("F32", 64), b=("BF16", 8))
    folder, log = model_folder(tmp_path, weights=weights), tmp_path / "log"
    assert main(["--verify", str(folder), "--termination-log", str(log)]) == 0
    assert left(log) == contract.ModelFacts(
        config={"model_type": "llama", "hidden_size": 8}, file_bytes=len(weights), stored_bytes=4
    )


@pytest.mark.parametrize(
    ("weights", "stored"),
    [
        pytest.param(safetensors(a=("BF16", 64)), 2, id="one type"),
        pytest.param(safetensors(a=("F32", 8), b=("F8_E4M3", 64)), 1, id="the type of most bytes"),
        pytest.param(safetensors(a=("I32", 64)), None, id="packed numbers say nothing"),
        pytest.param(safetensors(), None, id="no tensor"),
    ],
)
def test_the_header_says_what_a_number_takes(tmp_path: Path, weights: bytes, stored: float | None) -> None:
    found = facts.of_folder(model_folder(tmp_path, weights=weights))
    assert found is not None
    assert found.stored_bytes == stored


@pytest.mark.holds(
    "decisions/0011-model-facts.md",
    "Reading them never fails a pod, and a hub that does not answer holds none back",
)
@pytest.mark.parametrize(
    ("config", "weights"),
    [
        pytest.param(["a", "list"], b"", id="a config.json that is no object"),
        pytest.param(CONFIG, b"not safetensors", id="a file with another inside than its name says"),
        pytest.param(CONFIG, b"\0", id="a file cut off"),
        pytest.param(CONFIG, with_header("[1]"), id="a header that is a list"),
        pytest.param(CONFIG, with_header('"x"'), id="a header that is a word"),
        pytest.param(CONFIG, with_header('{"a": 1}'), id="a tensor that is a number"),
        pytest.param(CONFIG, with_header("[" * 200_000), id="a header that nests without end"),
        pytest.param(CONFIG, with_entry(dtype="F32"), id="a tensor without offsets"),
        pytest.param(CONFIG, with_entry(data_offsets=[0, 4]), id="a tensor without a type"),
        pytest.param(CONFIG, with_entry(dtype=["F32"], data_offsets=[0, 4]), id="a type that is a list"),
        pytest.param(CONFIG, with_entry(dtype="F32", data_offsets=[4]), id="an end without a beginning"),
        pytest.param(CONFIG, with_entry(dtype="F32", data_offsets=["a", 4]), id="an offset that is a word"),
        pytest.param(CONFIG, with_entry(dtype="F32", data_offsets=None), id="no offsets at all"),
        pytest.param({"model_type": "\ud800"}, b"", id="half a character in config.json"),
    ],
)
def test_a_model_that_cannot_be_read_is_still_served(tmp_path: Path, config: Any, weights: bytes) -> None:
    log = tmp_path / "log"
    assert (
        main(["--verify", str(model_folder(tmp_path, config, weights)), "--termination-log", str(log)]) == 0
    )
    assert not log.exists()


@pytest.mark.holds(
    "decisions/0011-model-facts.md",
    "The facts are under 4,096 bytes and leave out what memory does not follow from",
)
def test_a_message_that_the_kubelet_would_cut_off_is_not_left(tmp_path: Path) -> None:
    log = tmp_path / "log"
    long = contract.ModelFacts(config={"mlp_only_layers": list(range(2000))})
    facts.leave(long, log)
    assert not log.exists()


def test_what_a_later_release_adds_is_passed_over() -> None:
    read = contract.ModelFacts.model_validate_json('{"config": {}, "file_bytes": 7, "of_tomorrow": [1]}')
    assert read == contract.ModelFacts(config={}, file_bytes=7)


def test_a_complete_folder_is_read_before_the_hub_is_asked(tmp_path: Path) -> None:
    from flotilla_runtime.models import files

    folder, log = model_folder(tmp_path), tmp_path / "log"
    sizes = {name: (folder / name).stat().st_size for name in ("config.json", "model.safetensors")}
    files.write_marker(
        folder, files.Contents(source="hf://a/b", requested_revision=None, commit="c", sizes=sizes)
    )
    arguments = ["--source", "hf://a/b", "--to", str(folder), "--also", "{}", "--attempts", "3"]
    assert facts.main([*arguments, "--termination-log", str(log)]) == 0
    assert left(log).file_bytes == sizes["model.safetensors"]


@pytest.mark.services
@pytest.mark.parametrize(
    ("name", "file_bytes", "stored", "layers"),
    [
        pytest.param(GENERATOR.name, 269_060_552, 2, 30, id="SmolLM2"),
        pytest.param(EMBEDDER.name, 90_868_376, 4, 6, id="MiniLM"),
    ],
)
def test_the_real_models_facts(
    name: str, file_bytes: int, stored: float, layers: int, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    assert main(["--verify", str(ensure_models() / name), "--termination-log", str(log)]) == 0
    found = left(log)
    assert (found.file_bytes, found.stored_bytes) == (file_bytes, stored)
    assert found.config["num_hidden_layers"] == layers
    assert log.stat().st_size < 1000
