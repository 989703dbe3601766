"""The files that engine settings name, made from the small model of the tests: adapters and Eagle heads.

All are written as safetensors by hand: eight bytes with the length of a JSON header, it, and the numbers.
"""

import json
import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Tensor = tuple[str, list[int], bytes]
Tensors = Mapping[str, Tensor]
ADAPTER_RANK = 8
EAGLE_3_WORDS = 256  # of the vocabulary: a head of Eagle 3 guesses only the commonest


OF_LLAMA = "model.layers.{layer}.self_attn.o_proj"
OF_BERT = "encoder.layer.{layer}.attention.output.dense"


def write_adapter(folder: Path, model: Path, module: str, *, strength: float = 0.5) -> None:
    """An adapter in PEFT's form to one module of each layer, whose weights change what the model says."""
    config = json.loads((model / "config.json").read_text())
    width, chance = config["hidden_size"], random.Random(7)
    tensors: dict[str, Tensor] = {}
    for layer in range(config["num_hidden_layers"]):
        for half, shape in (("A", [ADAPTER_RANK, width]), ("B", [width, ADAPTER_RANK])):
            numbers = [chance.gauss(0, strength) for _ in range(ADAPTER_RANK * width)]
            name = f"base_model.model.{module.format(layer=layer)}.lora_{half}.weight"
            tensors[name] = ("F32", shape, struct.pack(f"<{len(numbers)}f", *numbers))
    folder.mkdir(parents=True)
    write_tensors(folder / "adapter_model.safetensors", tensors)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": ADAPTER_RANK,
        "lora_alpha": ADAPTER_RANK,
        "target_modules": [module.rpartition(".")[2]],
        "bias": "none",
        "base_model_name_or_path": model.name,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))


def write_eagle_head(folder: Path, model: Path) -> None:
    """A head of one layer, the model's first, behind a projection that knows nothing: it runs, and guesses
    badly.
    """
    config = json.loads((model / "config.json").read_text())
    width = config["hidden_size"]
    (weights,) = model.glob("*.safetensors")
    first = {
        name.removeprefix("model."): tensor
        for name, tensor in read_tensors(weights).items()
        if name.startswith("model.layers.0.") and "input_layernorm" not in name  # as heads have it
    }
    projection = ("BF16", [width, 2 * width], bytes(2 * width * 2 * width))
    folder.mkdir(parents=True)
    write_tensors(folder / "model.safetensors", {**first, "fc.weight": projection})
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))


def write_eagle_3_head(folder: Path, model: Path) -> None:
    """A head of Eagle's third generation, which reads three layers of the model and the word before: the
    model's first layer, behind a projection that knows nothing, for the first words of the vocabulary.
    """
    config = json.loads((model / "config.json").read_text())
    width = config["hidden_size"]
    (weights,) = model.glob("*.safetensors")
    whole = read_tensors(weights)
    layer = {
        name.removeprefix("model.layers.0."): _beside_nothing(tensor) if _reads_both(name) else tensor
        for name, tensor in whole.items()
        if name.startswith("model.layers.0.")
    }
    words = whole["model.embed_tokens.weight"][2][: EAGLE_3_WORDS * width * 2]
    tensors: dict[str, Tensor] = {
        **{f"midlayer.{name}": tensor for name, tensor in layer.items()},
        "midlayer.hidden_norm.weight": layer["input_layernorm.weight"],
        "norm.weight": whole["model.norm.weight"],
        "fc.weight": ("BF16", [width, 3 * width], bytes(2 * width * 3 * width)),
        "lm_head.weight": ("BF16", [EAGLE_3_WORDS, width], words),
        "d2t": ("I64", [EAGLE_3_WORDS], bytes(8 * EAGLE_3_WORDS)),
    }
    folder.mkdir(parents=True)
    write_tensors(folder / "model.safetensors", tensors)
    settings = {**config, "num_hidden_layers": 1, "draft_vocab_size": EAGLE_3_WORDS}
    (folder / "config.json").write_text(json.dumps(settings))


def _reads_both(name: str) -> bool:
    """Whether a weight of the head's layer is given the word before and the model's layers, side by side."""
    return any(part in name for part in ("q_proj", "k_proj", "v_proj"))


def _beside_nothing(tensor: Tensor) -> Tensor:
    """A weight that reads twice as much, and of the second half takes nothing."""
    dtype, (rows, columns), content = tensor
    size = len(content) // rows
    wider = b"".join(content[row * size : (row + 1) * size] + bytes(size) for row in range(rows))
    return dtype, [rows, 2 * columns], wider


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file: its type, its shape and its bytes."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    return {
        name: (
            told["dtype"],
            told["shape"],
            content[8 + length + told["data_offsets"][0] : 8 + length + told["data_offsets"][1]],
        )
        for name, told in header.items()
    }


def write_tensors(path: Path, tensors: Tensors) -> None:
    """A safetensors file."""
    header, end = {}, 0
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(content)]}
        end += len(content)
    described = json.dumps({**header, "__metadata__": {"format": "pt"}}).encode()
    parts = [struct.pack("<Q", len(described)), described, *(content for _, _, content in tensors.values())]
    path.write_bytes(b"".join(parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFiles:
    """A folder that stands for the pod's `/models` and `/claims`."""

    root: Path

    @classmethod
    def made(cls, root: Path, generator: Path, embedder: Path) -> "EngineFiles":
        """On the claim `m`: the models `llama` and `minilm`, the draft `small`, the heads `eagle` and
        `eagle3`, the adapter `sql` to the one and `legal` to the other.
        """
        claim = root / "claims" / "m"
        claim.mkdir(parents=True)
        for name, target in (("llama", generator), ("small", generator), ("minilm", embedder)):
            (claim / name).symlink_to(target)
        write_eagle_head(claim / "eagle", generator)
        write_eagle_3_head(claim / "eagle3", generator)
        write_adapter(claim / "sql", generator, OF_LLAMA)
        write_adapter(claim / "legal", embedder, OF_BERT)
        return cls(root=root)

    def arguments(self, rendered: list[str]) -> list[str]:
        """The rendered command line with paths that exist here."""
        return [argument.replace("/claims/", f"{self.root}/claims/") for argument in rendered]
