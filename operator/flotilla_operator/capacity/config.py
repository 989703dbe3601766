"""Reads a model's own `config.json`. Its field names differ between model families.

This module reads counts and sizes; `shape.py` and `parameters.py` say what they mean for memory. The names
are those that vLLM looks for (`transformers_utils/model_arch_config_convertor.py`). Where a family leaves out
a field that equals the default of its class in transformers, that default is listed here too.

CapacityError
  carries field, problem and fix; its text is one line
  └── ConfigError   a config.json that lacks what the arithmetic needs
"""

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]

# The part of a multimodal model that has the KV cache.
TEXT_PARTS = ("text_config", "llm_config", "language_config")
NAMES: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"),
    "head_dim": ("head_dim", "hidden_size_per_head", "kv_channels"),
    "intermediate": ("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner"),
    "vocabulary": ("vocab_size", "padded_vocab_size"),
    "experts": ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
    "expert_intermediate": ("moe_intermediate_size", "expert_ffn_hidden_size"),
    "model_len": (
        "max_position_embeddings",
        "n_positions",
        "max_seq_len",
        "seq_length",
        "max_sequence_length",
    ),
    "dtype": ("dtype", "torch_dtype"),
}
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262_208,
        "sliding_window_pattern": 6,
        "max_position_embeddings": 131_072,
    },
    "gemma2": {"sliding_window_pattern": 2, "head_dim": 256},
    "gemma": {"head_dim": 256},
}


class CapacityError(Exception):
    """The arithmetic cannot be done; `field` says where to correct it."""

    def __init__(self, *, field: str, problem: str, fix: str) -> None:
        super().__init__(f"{problem}; {fix} ({field})")
        self.field = field
        self.problem = problem
        self.fix = fix


class ConfigError(CapacityError):
    """A config.json that lacks what is needed to compute the model's memory."""


class Fields:
    """A config.json under the names of this package. Fields of the text part come first."""

    def __init__(self, config: Config) -> None:
        text: Config = next(
            (config[part] for part in TEXT_PARTS if isinstance(config.get(part), Mapping)), {}
        )
        self.model_type = str(text.get("model_type") or config.get("model_type") or "")
        self._layers: tuple[Config, ...] = (text, config, DEFAULTS.get(self.model_type, {}))

    def get(self, name: str) -> Any:
        """A field by its name in config.json, None where it is absent or null."""
        return next((layer[name] for layer in self._layers if layer.get(name) is not None), None)

    def find(self, meaning: str) -> Any:
        """A field by its meaning: the first of the names that families give it."""
        return next((value for name in NAMES[meaning] if (value := self.get(name)) is not None), None)

    def number(self, name: str) -> int:
        """A count by its name in config.json, 0 where it is absent."""
        return int(self.get(name) or 0)

    def count(self, meaning: str) -> int | None:
        """A count by its meaning. Some families write one for each layer; the largest is taken."""
        found = self.find(meaning)
        if isinstance(found, list):
            return max((int(value) for value in found), default=None)
        return None if found is None else int(found)

    def needed(self, meaning: str) -> int:
        """A count without which nothing can be computed; raises ConfigError."""
        found = self.count(meaning)
        if not found:
            names = " or ".join(NAMES[meaning][:2])
            kind = self.model_type or "no model_type"
            raise ConfigError(
                field="config.json",
                problem=f"the config.json of this model ({kind}) has no {names}",
                fix="add it to the file; without it no memory is computed for this model",
            )
        return found
