"""The settings of `spec.engine`, and what vLLM on CPUs makes of each: the rows of docs/engine.md."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting, and the words with which an engine on CPUs refuses it; None where it runs."""

    name: str
    engine: Mapping[str, Any]
    rest: Mapping[str, Any] = field(default_factory=dict)
    refusal: str | None = None


GPU = {"accelerator": {"resource": "nvidia.com/gpu"}}
EMBEDDER = {"model": {"name": "m", "source": "pvc://m/minilm", "task": "Embed"}}
ADAPTER = {"name": "sql", "source": "pvc://m/sql", "rank": 8}
EMBEDDER_ADAPTER = {"name": "legal", "source": "pvc://m/legal", "rank": 8}
DRAFT = {"method": "Draft", "model": "pvc://m/small", "numTokens": 3}

SETTINGS = (
    Setting(name="prefixCaching: true", engine={"prefixCaching": True, "chunkedPrefill": True}),
    Setting(name="prefixCaching: false", engine={"prefixCaching": False}),
    Setting(name="chunkedPrefill: false", engine={"chunkedPrefill": False}),
    Setting(name="speculative: NGram", engine={"speculative": {"method": "NGram", "numTokens": 4}}),
    Setting(name="speculative: Draft", engine={"speculative": DRAFT}),
    Setting(name="speculative: Eagle", engine={"speculative": {"method": "Eagle", "model": "pvc://m/eagle"}}),
    Setting(
        name="kvOffloadGiB",
        engine={"kvOffloadGiB": 0.5},
        rest=GPU,
        refusal="CPU Offloading is currently only supported on CUDA-alike and XPU GPUs",
    ),
    Setting(name="kvCacheDtype: FP8", engine={"kvCacheDtype": "FP8"}),
    Setting(name="kvCacheDtype: FP8E4M3", engine={"kvCacheDtype": "FP8E4M3"}),
    Setting(name="kvCacheDtype: FP8E5M2", engine={"kvCacheDtype": "FP8E5M2"}),
    Setting(name="adapters", engine={"adapters": [ADAPTER]}),
    Setting(
        name="adapters, task: Embed",
        engine={"adapters": [EMBEDDER_ADAPTER], "maxModelLen": 256},  # the model takes no more
        rest=EMBEDDER,
    ),
)
