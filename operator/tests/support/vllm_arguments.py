"""Asks vLLM what it makes of command lines: run by the engine's own Python, one JSON list a line.

For each line it answers with one: the values that vLLM's parser read and the settings it made of them, or its
complaint. Importing vLLM takes seconds and judging a command line milliseconds, so one process judges many.
"""

import json
import os
import sys
from typing import Any

READ = (
    "model",
    "served_model_name",
    "runner",
    "max_model_len",
    "max_num_seqs",
    "gpu_memory_utilization",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "distributed_executor_backend",
    "nnodes",
    "node_rank",
    "master_addr",
    "master_port",
    "headless",
    "kv_cache_dtype",
    "kv_offloading_size",
    "enable_prefix_caching",
    "enable_chunked_prefill",
    "speculative_config",
    "enable_lora",
    "max_lora_rank",
    "max_loras",
    "max_cpu_loras",
)


def main() -> None:
    """Answer until standard input ends; only answers go to standard output, where vLLM logs too."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args
    from vllm.usage.usage_lib import UsageContext
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    ServeSubcommand().subparser_init(parser.add_subparsers(dest="subparser"))
    for line in sys.stdin:
        answer: dict[str, Any] = {"read": None, "problem": None}
        try:
            read = parser.parse_args(["serve", *json.loads(line)])
            validate_parsed_serve_args(read)
            read.model = read.model_tag  # what `vllm serve` does with the model before it starts
            answer["read"] = {name: getattr(read, name) for name in READ}
            answer["read"]["lora_modules"] = {m.name: m.path for m in read.lora_modules or ()}
            made = AsyncEngineArgs.from_cli_args(read)
            context = UsageContext.OPENAI_API_SERVER
            made.create_engine_config(usage_context=context, headless=read.headless)
        except SystemExit as refused:
            answer["problem"] = f"the parser ended with {refused.code}; its words are on standard error"
        except Exception as refused:
            answer["problem"] = str(refused)
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
