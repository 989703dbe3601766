"""The presets of examples/models/: that each fits its accelerators, and the figures of their table."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from flotilla_operator.api.model_replica_set import ModelReplicaSet, ModelReplicaSetSpec
from flotilla_operator.capacity import Accelerator, Fit, Parallel, Wanted, fit, shape_of
from tests.builders import model_configs as configs

FOLDER = Path(__file__).parents[3] / "examples" / "models"
TABLE = FOLDER / "README.md"
ON_ACCELERATORS = {
    "qwen2.5-7b": configs.QWEN2_7B,
    "qwen3-8b": configs.QWEN3_8B,
    "gpt-oss-20b": configs.GPT_OSS_20B,
    "qwen3-30b-a3b": configs.QWEN3_30B_A3B,
    "llama-3.3-70b": configs.LLAMA_70B,
    "deepseek-v3": configs.DEEPSEEK_V3,
}
ON_CPUS = {"smollm2-135m": configs.SMOLLM2, "all-minilm-l6-v2": configs.MINILM}


def preset(name: str) -> ModelReplicaSetSpec:
    manifest = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return ModelReplicaSet.model_validate(manifest).spec


def verdict(name: str, *, memory_gib: float | None = None) -> Fit:
    spec = preset(name)
    assert spec.accelerator is not None
    assert spec.engine.max_model_len is not None
    held = memory_gib or spec.accelerator.memory_gib
    assert held is not None
    wanted = Wanted(max_model_len=spec.engine.max_model_len)
    parallel = Parallel(tensor=spec.parallelism.tensor, pipeline=spec.parallelism.pipeline)
    return fit(shape_of(ON_ACCELERATORS[name]), Accelerator(memory_gib=held), wanted, parallel)


def rows() -> dict[str, list[str]]:
    """The cells of the table, by the name of the preset."""
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| [")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first.split("[", 1)[1].split("]", 1)[0]: rest for first, *rest in cells}


def test_there_are_eight_and_the_table_has_each() -> None:
    names = {path.stem for path in FOLDER.glob("*.yaml")}
    assert names == ON_ACCELERATORS.keys() | ON_CPUS.keys() == rows().keys()
    assert len(names) == 8


@pytest.mark.holds(
    "README.md",
    "The presets of examples/models fit their GPUs, would not with half the memory, and their "
    "table has the computed figures",
)
@pytest.mark.parametrize("name", ON_ACCELERATORS)
def test_it_fits_and_would_not_with_half_the_memory(name: str) -> None:
    spec = preset(name)
    assert spec.accelerator is not None
    assert spec.accelerator.memory_gib is not None
    assert verdict(name).fits
    assert not verdict(name, memory_gib=spec.accelerator.memory_gib / 2).fits


@pytest.mark.parametrize("name", [*ON_ACCELERATORS, *ON_CPUS])
def test_its_length_is_one_that_the_model_was_made_for(name: str) -> None:
    config: dict[str, Any] = {**ON_ACCELERATORS, **ON_CPUS}[name]
    assert (preset(name).engine.max_model_len or 0) <= config["max_position_embeddings"]


@pytest.mark.holds(
    "README.md",
    "The presets of examples/models fit their GPUs, would not with half the memory, and their "
    "table has the computed figures",
)
@pytest.mark.parametrize("name", ON_ACCELERATORS)
def test_the_table_has_its_figures(name: str) -> None:
    spec, found = preset(name), verdict(name)
    assert spec.accelerator is not None
    assert found.sequences is not None
    accelerators, length, weights, sequences = rows()[name]
    assert accelerators == f"{spec.parallelism.tensor} of {spec.accelerator.memory_gib:g} GiB"
    assert length == f"{spec.engine.max_model_len:,}"
    assert weights == f"{found.weight_bytes / 2**30:.1f} GiB"
    assert sequences == f"{found.sequences:.1f}"
