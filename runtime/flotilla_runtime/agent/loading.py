"""Loads what a worker runs: the built-in agent, or the entrypoint of the fleet's image.

Python code is imported once, when the worker starts. Code that is missing is an error that names the field
and the fix; the worker then answers that it is not ready, with the same words.
"""

import inspect
from typing import Final

from flotilla_runtime.agent.loop import built_in
from flotilla_runtime.agent.programs import AgentMain, ContextOf, Program, stated_context
from flotilla_runtime.agent.references import ProgramError, referred
from flotilla_runtime.contract import WorkerConfig

ENTRYPOINT: Final = "spec.agent.entrypoint"


def load_program(config: WorkerConfig, context_of: ContextOf = stated_context) -> Program:
    """The program for this configuration; raises ProgramError."""
    main = built_in if config.entrypoint is None else entrypoint(config.entrypoint)
    return Program(main=main, config=config, context_of=context_of)


def entrypoint(reference: str) -> AgentMain:
    """The agent that a fleet's image brings."""
    found = referred(ENTRYPOINT, reference)
    if not inspect.iscoroutinefunction(found):
        raise ProgramError(ENTRYPOINT, f"{reference} is no coroutine: write `async def agent(ctx, task)`")
    try:
        inspect.signature(found).bind(None, None)
    except TypeError as problem:
        raise ProgramError(ENTRYPOINT, f"{reference} does not take (ctx, task): {problem}") from problem
    return found  # type: ignore[no-any-return]
