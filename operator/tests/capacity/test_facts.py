"""Engine pods report all of a model's config.json that the arithmetic reads."""

from typing import Any

import pytest

from flotilla_operator.capacity import shape_of
from flotilla_runtime import contract
from flotilla_runtime.models.facts import facts_of
from tests.builders.model_configs import GEMMA3_4B, LLAMA_8B, PUBLISHED

AWQ_IN_GROUPS = {
    "quant_method": "compressed-tensors",
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 64}}},
}
CONFIGS = {name: config for name, (config, _) in PUBLISHED.items()} | {
    "Gemma 3 4B, a text part": GEMMA3_4B,
    "MPT's parts": {
        "model_type": "mpt",
        "d_model": 4096,
        "n_layers": 32,
        "n_heads": 32,
        "attn_config": {"kv_n_heads": 8},
    },
    "a quantised one": {**LLAMA_8B, "quantization_config": AWQ_IN_GROUPS},
}


@pytest.mark.holds(
    "capacity.md",
    "Layers, heads and widths come from the model's own `config.json`, read by an init container",
)
@pytest.mark.parametrize("config", [pytest.param(config, id=name) for name, config in CONFIGS.items()])
def test_nothing_that_counts_is_lost_on_the_way(config: dict[str, Any]) -> None:
    facts = facts_of({**config, "architectures": ["X"], "vision_config": {"hidden_size": 1}}, None, None)
    assert facts is not None
    text = facts.model_dump_json(exclude_none=True)
    assert len(text) < contract.TERMINATION_LOG_BYTES / 2
    assert shape_of(contract.ModelFacts.model_validate_json(text).config) == shape_of(config)
