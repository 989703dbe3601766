"""The files that a folder must have so that an engine can load it as a model or as an adapter."""

from dataclasses import dataclass
from typing import Final

from flotilla_runtime.contract import FilesRole
from flotilla_runtime.models.failures import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The files of a model or an adapter, as patterns.

    From a repository of the hub, the `needed` files are fetched, and `weights` must be among them. A folder
    of the user's may have its weights in any format that the engine reads (`any_weights`).
    """

    noun: str
    configuration: str
    needed: tuple[str, ...]
    weights: str
    any_weights: tuple[str, ...]
    refused_as: Reason


MODEL: Final = Shape(
    noun="a model",
    configuration="config.json",
    needed=("*.safetensors", "*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt"),
    weights="*.safetensors",
    any_weights=("*.safetensors", "*.bin", "*.pt", "*.gguf"),
    refused_as=Reason.NOT_A_MODEL,
)
# No patterns with wildcards: repositories of adapters often have all checkpoints of their training in
# folders.
ADAPTER: Final = Shape(
    noun="a LoRA adapter",
    configuration="adapter_config.json",
    needed=("adapter_config.json", "adapter_model.safetensors"),
    weights="adapter_model.safetensors",
    any_weights=("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt"),
    refused_as=Reason.NOT_AN_ADAPTER,
)
SHAPES: Final = {FilesRole.MODEL: MODEL, FilesRole.GUESSER: MODEL, FilesRole.ADAPTER: ADAPTER}
