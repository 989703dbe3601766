"""Starts vLLM on a CPU with the arguments that the upstream image takes.

The engine image runs this file, and so does `python -m engine serve`. What a CPU needs is added here, so that
one pod spec serves both images: caches where they can be written, threads counted from the container's limit
and bound to no core (two engines on one machine would otherwise choose the same one), and arguments that
come before the caller's, whose own value therefore wins. Only the standard library is imported: this file is
copied into an image that has nothing else.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

PACKAGES = "/opt/engine/current/site-packages"
PACKAGES_VARIABLE = "ENGINE_PACKAGES"
MODEL_INFOS = "model-infos"  # the folder beside the packages
# vLLM's default for CPUs is one process more, so that it can bind threads: 15 s and 1 GiB (measured).
IN_PROCESS = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
PIPELINE = ("--pipeline-parallel-size", "-pp")
ONE_PROCESS_ONLY = ("--tensor-parallel-size", "-tp", *PIPELINE)
# A stage makes the room for what it receives in the warm-up, which vLLM leaves out on a CPU when nothing is
# compiled; so stages are traced, though not compiled.
TRACED = ("--compilation-config", '{"mode": 2, "backend": "eager"}')
# `vllm serve`, which knows --headless. Its own main function wants the metadata of a package named vllm.
SERVE = """
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
from vllm.utils.argparse_utils import FlexibleArgumentParser

cli_env_setup()
given = make_arg_parser(FlexibleArgumentParser()).parse_args()
validate_parsed_serve_args(given)
ServeSubcommand.cmd(given)
"""
BRAIN_FLOAT_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def arguments(given: Sequence[str], cpu_flags: set[str]) -> list[str]:
    """The command line for `vllm serve`: the model, which it takes first and without a name, then what a CPU
    wants, then what else the caller gave.

    Half precision floats have no fast kernels on a CPU: the same embeddings took 0.4 s as bfloat16 and 3.9 s
    as float16.
    """
    model = [argument for argument in given[:1] if not argument.startswith("-")]
    named = given[len(model) :]
    defaults = ["--dtype", "bfloat16" if cpu_flags & BRAIN_FLOAT_FLAGS else "float32"]
    defaults += TRACED if _several(PIPELINE, named) else ["--enforce-eager"]
    if not _several(ONE_PROCESS_ONLY, named):
        defaults += ["--distributed-executor-backend", IN_PROCESS]
    return [*model, *defaults, *named]


def _several(names: Sequence[str], given: Sequence[str]) -> bool:
    """Whether the caller splits the model by one of these arguments."""
    parts = [part for argument in given for part in argument.split("=", 1)]
    return any(name.replace("_", "-") in names and value != "1" for name, value in pairwise(parts))


def environment(
    given: Mapping[str, str], packages: str, home: str, scratch: str, threads: int
) -> dict[str, str]:
    """The process's environment; what the caller set is kept."""
    defaults = {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TMPDIR": scratch,
        "USER": "engine",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
    }
    return {**defaults, **given, "HOME": home, "PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1"}


def cpu_limit(quota: str, available: int) -> int:
    """How many threads may run at once: the container's quota in whole cores, else all that there are.

    `quota` is what the kernel's file says: "200000 100000" or "max 100000".
    """
    numbers = quota.split()
    if len(numbers) == 2 and numbers[0].isdigit():
        return max(1, min(available, -(-int(numbers[0]) // int(numbers[1]))))
    return available


def _read_quota(groups: Path = Path("/sys/fs/cgroup")) -> str:
    try:
        return (groups / "cpu.max").read_text()
    except OSError:
        pass
    try:
        old = groups / "cpu"
        return f"{(old / 'cpu.cfs_quota_us').read_text()} {(old / 'cpu.cfs_period_us').read_text()}"
    except OSError:
        return ""


def _read_cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}


def _writable(candidates: Sequence[str | None], purpose: str) -> str:
    for candidate in candidates:
        if candidate and os.access(candidate, os.W_OK | os.X_OK):
            return candidate
    sys.exit(f"engine: no writable folder for {purpose}; mount an emptyDir at /tmp, or set HOME to one")


def give_model_infos(packages: str, process_environment: Mapping[str, str]) -> None:
    """Put what vLLM knows of the classes of our models where it looks for it.

    It would find it out by importing itself in a process of its own, which takes 13 s of processor time at
    every start of a container (measured).
    """
    known = Path(packages).parent / MODEL_INFOS
    caches = process_environment.get("XDG_CACHE_HOME") or f"{process_environment['HOME']}/.cache"
    wanted = Path(process_environment.get("VLLM_CACHE_ROOT") or f"{caches}/vllm", "modelinfos")
    if known.is_dir() and not wanted.exists():
        with contextlib.suppress(OSError):
            shutil.copytree(known, wanted)


def main() -> None:
    """Replace this process by vLLM."""
    packages = os.environ.get(PACKAGES_VARIABLE, PACKAGES)
    if not Path(packages, "vllm").is_dir():
        sys.exit(
            f"engine: vLLM's packages are not at {packages}; run `python -m engine environment` on the node "
            f"and mount the folder there read-only, or set {PACKAGES_VARIABLE}"
        )
    scratch = _writable([os.environ.get("TMPDIR"), "/tmp", os.environ.get("HOME")], "temporary files")
    home = _writable([os.environ.get("HOME"), scratch], "caches")
    available = len(os.sched_getaffinity(0))
    process_environment = environment(
        os.environ, packages, home, scratch, cpu_limit(_read_quota(), available)
    )
    give_model_infos(packages, process_environment)
    command = [sys.executable, "-c", SERVE, *arguments(sys.argv[1:], _read_cpu_flags())]
    os.execve(sys.executable, command, process_environment)


if __name__ == "__main__":
    main()
