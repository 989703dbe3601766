"""Turns a language model's GGUF file into the folder an engine serves: bf16 safetensors, tokenizer, template.

Runs inside the engine's environment, as a program of its own: `python convert.py GGUF_FILE FOLDER`.
"""

import sys
from pathlib import Path

import torch  # type: ignore[import-not-found]
from transformers import (  # type: ignore[import-not-found]
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
)


def convert(gguf_file: Path, folder: Path) -> None:
    """Write the model of `gguf_file` to `folder`.

    Loading marks the configuration as quantized although the weights have been expanded, and saving would
    then refuse; so the weights go into a plain model made from the cleaned configuration.
    """
    source, name = str(gguf_file.parent), gguf_file.name
    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.bfloat16)
    configuration = AutoConfig.from_pretrained(source, gguf_file=name)
    if hasattr(configuration, "quantization_config"):
        del configuration.quantization_config
    configuration.dtype = torch.bfloat16
    plain = AutoModelForCausalLM.from_config(configuration, dtype=torch.bfloat16)
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name)
    if not tokenizer.chat_template:
        raise SystemExit(f"{gguf_file} holds no chat template")
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
