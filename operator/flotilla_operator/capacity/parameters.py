"""How many parameters a model has and what they weigh, computed from its config.json alone.

This is a last resort. The sizes of the weight files, or `metadata.total_size` in their index, are exact and
are used wherever they are known. The count here leaves out biases, norms and vision towers; for the text
models in its test it is within 1 % of the published count.

    embedding tables   vocabulary · hidden, twice unless input and output share one
    attention          2 · hidden · heads · head_dim (query, output) + 2 · hidden · kv_heads · head_dim
    latent attention   DeepSeek-V2, arXiv 2405.04434, section 2.1
    feed forward       3 · hidden · intermediate with a gate (SwiGLU), 2 · hidden · intermediate without
    experts            as many of these as there are, and a router of hidden · experts
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flotilla_operator.capacity.config import Fields

HALF_BYTES = 2.0  # bfloat16 and float16
DTYPE_BYTES: Mapping[str, float] = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "half": 2.0}
WITHOUT_GATE = frozenset(
    """bert bloom codegen falcon gpt2 gpt_bigcode gpt_neox gptj mpnet mpt nemotron opt persimmon phi roberta
    starcoder2 xglm xlm-roberta""".split()  # noqa: SIM905
)
ENCODERS = frozenset(
    """bert distilbert electra modernbert mpnet new nomic_bert roberta xlm-roberta""".split()  # noqa: SIM905
)
TIED_BY_DEFAULT = ENCODERS | frozenset(
    """bloom cohere cohere2 falcon gemma gemma2 gemma3 gemma3_text gpt2 gpt_bigcode mpt
    opt""".split()  # noqa: SIM905
)
# Where the file gives neither: the default group of AutoGPTQ and AutoAWQ, and bitsandbytes' bits for scales.
USUAL_GROUP = 128
EXTRA_BITS_BITSANDBYTES = 0.5
# Microscaling formats (OCP MX 1.0): 4 bits, and one 8-bit scale for 32 of them; NVFP4: for 16.
MXFP4_BITS, NVFP4_BITS = 4 + 8 / 32, 4 + 8 / 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Numbers of parameters: in one embedding table, the number of tables, in all layers, in all experts."""

    table: int
    tables: int
    layers: int
    experts: int

    @property
    def total(self) -> int:
        return self.table * self.tables + self.layers + self.experts


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberSizes:
    """Bytes of one number in the layers and in the experts. Embedding tables are never quantised."""

    layers: float
    experts: float


def parameters_of(fields: Fields) -> Parameters:
    """The numbers of parameters; raises ConfigError."""
    layers = fields.needed("layers")
    sparse = _sparse_layers(fields, layers)
    hidden = fields.needed("hidden")
    gates = 2 if fields.model_type in WITHOUT_GATE else 3
    dense = gates * hidden * _intermediate(fields, hidden)
    experts = fields.count("experts") or 0
    expert_width = fields.count("expert_intermediate") or _intermediate(fields, hidden)
    shared_width = (
        fields.number("shared_expert_intermediate_size") or fields.number("n_shared_experts") * expert_width
    )
    sparse_shared = gates * hidden * shared_width + hidden * experts
    return Parameters(
        table=(fields.count("vocabulary") or 0) * hidden,
        tables=1 if tied(fields) else 2,
        layers=layers * _attention(fields, hidden) + (layers - sparse) * dense + sparse * sparse_shared,
        experts=sparse * experts * gates * hidden * expert_width,
    )


def tied(fields: Fields) -> bool:
    """Whether input and output share one embedding table. Encoders have no output table."""
    said = fields.get("tie_word_embeddings")
    if fields.model_type in ENCODERS or said is None:
        return fields.model_type in TIED_BY_DEFAULT
    return bool(said)


def number_sizes(fields: Fields) -> NumberSizes:
    """The bytes of a number once the model is loaded.

    vLLM computes with 2 bytes where a model was stored with 4 (`_resolve_auto_dtype` in its config/model.py).
    """
    quantization = quantization_of(fields)
    bits = _quantized_bits(quantization)
    if bits is None:
        return NumberSizes(layers=HALF_BYTES, experts=HALF_BYTES)
    only_experts = str(quantization.get("quant_method")).lower() == "mxfp4"
    return NumberSizes(layers=HALF_BYTES if only_experts else bits / 8, experts=bits / 8)


def quantization_of(fields: Fields) -> Mapping[str, Any]:
    """The model's quantisation settings; empty when it is not quantised."""
    said = fields.get("quantization_config") or fields.get("compression_config")
    return said if isinstance(said, Mapping) else {}


def dtype_bytes(fields: Fields) -> float | None:
    """Bytes of one number as stored; None when the file does not say."""
    return DTYPE_BYTES.get(str(fields.find("dtype")).removeprefix("torch."))


def loaded_bytes(parameters: Parameters, sizes: NumberSizes) -> int:
    """Return the size of the parameters on all accelerators together."""
    return round(
        parameters.table * parameters.tables * HALF_BYTES
        + parameters.layers * sizes.layers
        + parameters.experts * sizes.experts
    )


def _intermediate(fields: Fields, hidden: int) -> int:
    return fields.count("intermediate") or 4 * hidden


def head_dim(fields: Fields) -> int:
    """Numbers in one head's query, key or value."""
    return fields.count("head_dim") or fields.needed("hidden") // fields.needed("heads")


def kv_heads(fields: Fields) -> int:
    """Heads whose keys and values are kept, before tensor parallelism; all unless the file says fewer."""
    attention = fields.get("attn_config")
    if isinstance(attention, Mapping) and attention.get("kv_n_heads"):
        return int(attention["kv_n_heads"])
    if fields.get("multi_query") and not fields.get("new_decoder_architecture"):
        return 1
    return fields.count("kv_heads") or fields.needed("heads")


def latent_numbers(fields: Fields) -> int:
    """How many numbers latent attention keeps for one token in one layer; 0 for other kinds of attention."""
    return fields.number("kv_lora_rank") and fields.number("kv_lora_rank") + fields.number("qk_rope_head_dim")


def _attention(fields: Fields, hidden: int) -> int:
    heads = fields.needed("heads")
    if not latent_numbers(fields):
        width = head_dim(fields)
        return 2 * hidden * heads * width + 2 * hidden * kv_heads(fields) * width
    rank, query_rank = fields.number("kv_lora_rank"), fields.number("q_lora_rank")
    nope, value = fields.number("qk_nope_head_dim"), fields.number("v_head_dim")
    query_width = heads * (nope + fields.number("qk_rope_head_dim"))
    query = hidden * query_rank + query_rank * query_width if query_rank else hidden * query_width
    down = hidden * latent_numbers(fields)
    up = rank * heads * (nope + value)
    return query + down + up + heads * value * hidden


def _sparse_layers(fields: Fields, layers: int) -> int:
    """How many layers have experts. The first layers, listed layers, or all but every n-th may have none."""
    if not fields.count("experts"):
        return 0
    dense = fields.number("first_k_dense_replace") + len(fields.get("mlp_only_layers") or ())
    step = fields.number("decoder_sparse_step") or fields.number("interleave_moe_layer_step") or 1
    return max(0, layers - dense) // step


def _quantized_bits(quantization: Mapping[str, Any]) -> float | None:
    """Bits of one quantised number with its share of the scales; None when the method is unknown."""
    method = str(quantization.get("quant_method") or "").lower()
    if "fp8" in method or method == "modelopt":
        return 8.0
    if method == "mxfp4":
        return MXFP4_BITS
    if method == "modelopt_fp4":
        return NVFP4_BITS
    if method == "bitsandbytes":
        return 8.0 if quantization.get("load_in_8bit") else 4 + EXTRA_BITS_BITSANDBYTES
    bits, group = _bits_and_group(quantization)
    if bits is None:
        return None
    # A 16-bit scale and a zero point for each group of numbers.
    return bits if bits >= 8 else bits + (16 + bits) / (group if group > 0 else USUAL_GROUP)


def _bits_and_group(quantization: Mapping[str, Any]) -> tuple[int | None, int]:
    """Bits and group size. AWQ and GPTQ give them at the top, compressed-tensors for each group of layers."""
    for part in (quantization, *(quantization.get("config_groups") or {}).values()):
        weights = part.get("weights") or part
        bits = weights.get("num_bits") or weights.get("bits") or weights.get("w_bit")
        if bits:
            return int(bits), int(weights.get("group_size") or USUAL_GROUP)
    return None, USUAL_GROUP
