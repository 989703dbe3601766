"""The settings of `spec.engine` that reach vLLM; what it makes of them on CPUs, docs/engine.md says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting, and the words with which an engine on CPUs refuses it; None where it runs.

    Its name is that of the field, with a value (`kvCacheDtype: FP8`) or a case (`adapters, task: Embed`).
    `refusal_without_avx_512` are the words on processors that have neither AVX-512 nor AMX.
    """

    name: str
    engine: Mapping[str, Any]
    rest: Mapping[str, Any] = field(default_factory=dict)
    refusal: str | None = None
    refusal_without_avx_512: str | None = None


GPU = {"accelerator": {"resource": "nvidia.com/gpu"}}
EMBEDDER = {"model": {"name": "m", "source": "pvc://m/minilm", "task": "Embed"}}
ADAPTER: dict[str, Any] = {"name": "sql", "source": "pvc://m/sql", "rank": 8}
EMBEDDER_ADAPTER: dict[str, Any] = {"name": "legal", "source": "pvc://m/legal", "rank": 8}
DRAFT = {"method": "Draft", "model": "pvc://m/small", "numTokens": 3}
EAGLE = {"method": "Eagle", "model": "pvc://m/eagle"}
EAGLE_3 = {"method": "Eagle", "model": "pvc://m/eagle3"}
NO_FP8 = "FP8 KV cache on CPU requires x86 with AVX-512 or AMX"

SETTINGS = (
    Setting(name="maxModelLen", engine={"maxModelLen": 128}),
    Setting(name="maxNumSeqs", engine={"maxNumSeqs": 2}),
    Setting(name="prefixCaching: true", engine={"prefixCaching": True, "chunkedPrefill": True}),
    Setting(name="prefixCaching: false", engine={"prefixCaching": False}),
    Setting(name="chunkedPrefill: true", engine={"chunkedPrefill": True}),
    Setting(name="chunkedPrefill: false", engine={"chunkedPrefill": False}),
    Setting(name="speculative.method: NGram", engine={"speculative": {"method": "NGram"}}),
    Setting(name="speculative.method: Draft", engine={"speculative": DRAFT}),
    Setting(name="speculative.method: Eagle", engine={"speculative": EAGLE}),
    Setting(name="speculative.method: Eagle, eagle3 in the name", engine={"speculative": EAGLE_3}),
    Setting(name="speculative.numTokens", engine={"speculative": {"method": "NGram", "numTokens": 2}}),
    Setting(
        name="kvOffloadGiB",
        engine={"kvOffloadGiB": 0.5},
        rest=GPU,
        refusal="CPU Offloading is currently only supported on CUDA-alike and XPU GPUs",
    ),
    Setting(name="kvCacheDtype: Auto", engine={"kvCacheDtype": "Auto"}),
    Setting(
        name="kvCacheDtype: FP8",
        engine={"kvCacheDtype": "FP8"},
        refusal_without_avx_512=NO_FP8,
    ),
    Setting(
        name="kvCacheDtype: FP8E4M3",
        engine={"kvCacheDtype": "FP8E4M3"},
        refusal_without_avx_512=NO_FP8,
    ),
    Setting(
        name="kvCacheDtype: FP8E5M2",
        engine={"kvCacheDtype": "FP8E5M2"},
        refusal_without_avx_512=NO_FP8,
    ),
    Setting(name="adapters", engine={"adapters": [ADAPTER]}),
    Setting(
        name="adapters[].rank, less than the adapter's",
        engine={"adapters": [{**ADAPTER, "rank": 1}]},
        refusal="LoRA rank 8 is greater than max_lora_rank 1",
    ),
    Setting(
        name="adapters, task: Embed",
        engine={"adapters": [EMBEDDER_ADAPTER], "maxModelLen": 256},  # the model takes no more
        rest=EMBEDDER,
    ),
    Setting(name="extraArgs", engine={"extraArgs": ["--max-model-len", "200"]}),
    Setting(name="env", engine={"env": [{"name": "VLLM_SERVER_DEV_MODE", "value": "1"}]}),
)
BY_NAME = {setting.name: setting for setting in SETTINGS}
