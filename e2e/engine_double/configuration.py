"""The double's configuration file, read with pydantic, and the arguments it shares with vLLM."""

import argparse
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine_double.faults import Faults
from engine_double.plans import Plan
from engine_double.replies import ScriptedReply
from engine_double.work import Limits, Speeds

Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Task(StrEnum):
    """Whether the imitated model generates text or embeds it."""

    GENERATE = "Generate"
    EMBED = "Embed"


class Configuration(BaseModel):
    """The model, speeds, KV cache size, scripted replies and faults of one double."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "double"
    task: Task = Task.GENERATE
    max_model_len: Count = 8192
    max_num_seqs: Count = 256
    max_num_batched_tokens: Count = 8192
    kv_blocks: Count = 4096
    block_tokens: Count = 16
    prefix_caching: bool = True
    byte_tokens: bool = False
    """Whether each byte of a prompt is a token: the most that a tokenizer makes of a text."""
    prefill_tokens_per_second: Annotated[float, Field(gt=0)] = 11_300.0
    decode_step_seconds: Seconds = 0.012
    decode_step_seconds_per_sequence: Seconds = 0.0
    reply_tokens: Count = 32
    """The length of a reply that is not scripted, unless the caller sets a lower limit."""
    embedding_dimension: Count = 384
    prompt_tokens_details: bool = False
    """Whether usage says how many tokens of the prompt were in the cache; vLLM's argument has this name."""
    script: tuple[ScriptedReply, ...] = ()
    plans: dict[str, Plan] = {}
    """Plans by their names; see engine_double.plans."""
    faults: Faults = Faults()

    @model_validator(mode="after")
    def _one_sequence_fits(self) -> Self:
        if self.kv_blocks * self.block_tokens < self.max_model_len:
            raise ValueError(
                f"kv_blocks x block_tokens is {self.kv_blocks * self.block_tokens} tokens and max_model_len "
                f"is {self.max_model_len}: one sequence would not fit; raise kv_blocks"
            )
        return self

    def speeds(self) -> Speeds:
        """The simulator's speeds."""
        return Speeds(
            prefill_tokens_per_second=self.prefill_tokens_per_second,
            decode_step_seconds=self.decode_step_seconds,
            decode_step_seconds_per_sequence=self.decode_step_seconds_per_sequence,
        )

    def limits(self) -> Limits:
        """The simulator's limits."""
        return Limits(
            max_num_seqs=self.max_num_seqs,
            max_num_batched_tokens=self.max_num_batched_tokens,
            kv_blocks=self.kv_blocks,
            block_tokens=self.block_tokens,
            prefix_caching=self.prefix_caching,
        )


def parser() -> argparse.ArgumentParser:
    """The double's own arguments, and those of vLLM that it understands."""
    arguments = argparse.ArgumentParser(prog="python -m engine_double", allow_abbrev=False)
    arguments.add_argument("--config", type=Path, help="a JSON file; see engine_double.configuration")
    arguments.add_argument(
        "--faults",
        type=Faults.model_validate_json,
        help="JSON, in place of the file's; see engine_double.faults",
    )
    arguments.add_argument("--host", default=None)
    arguments.add_argument("--port", type=int, default=8000)
    arguments.add_argument("--model", default=None)
    arguments.add_argument("--served-model-name", default=None)
    arguments.add_argument("--max-model-len", type=int, default=None)
    arguments.add_argument("--max-num-seqs", type=int, default=None)
    arguments.add_argument("--runner", default=None)
    arguments.add_argument(
        "--enable-prefix-caching", action=argparse.BooleanOptionalAction, default=None, dest="prefix_caching"
    )
    arguments.add_argument("--enable-prompt-tokens-details", action="store_true", default=None)
    return arguments


def configuration(options: argparse.Namespace) -> Configuration:
    """The file's settings, overridden by the arguments; a longer context adds the KV blocks that it needs."""
    base = (
        Configuration.model_validate_json(options.config.read_text()) if options.config else Configuration()
    )
    given = {
        "model": options.served_model_name or options.model,
        "task": Task.EMBED if options.runner == "pooling" else None,
        "max_model_len": options.max_model_len,
        "max_num_seqs": options.max_num_seqs,
        "prefix_caching": options.prefix_caching,
        "prompt_tokens_details": options.enable_prompt_tokens_details,
        "faults": options.faults,
    }
    merged = base.model_dump() | {name: value for name, value in given.items() if value is not None}
    least_blocks = -(-merged["max_model_len"] // merged["block_tokens"])
    merged["kv_blocks"] = max(merged["kv_blocks"], least_blocks)
    return Configuration.model_validate(merged)


def parse(arguments: Sequence[str]) -> tuple[Configuration, argparse.Namespace, list[str]]:
    """The configuration, the options that say where to listen, and the arguments that are ignored."""
    named = ["--model", *arguments] if arguments and not arguments[0].startswith("-") else list(arguments)
    options, ignored = parser().parse_known_args(named)
    return configuration(options), options, ignored
