"""Calls Python functions of the fleet's image: arguments are validated by their signature, time is limited.

A plain function runs in a thread. Nobody can stop a thread: one that takes too long is left behind, and holds
one of the places for threads until it ends. When all are held so, the worker is stuck and has to be replaced.
A call that got no place was not begun. The threads are daemons, so they hold no worker up that leaves.
"""

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_type_hints

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from flotilla_runtime.agent.tools.references import ProgramError, referred
from flotilla_runtime.contract.failure_texts import what_failed

KEY: Final = "idempotency_key"
RESULT: Final = "result"  # the arguments of a function that checks
INPUT: Final = "input"
MOST_THREADS: Final = 64

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonFunction:
    """A function with the model of its arguments; `wraps` is the one parameter that is the model itself."""

    call: Callable[..., Any]
    arguments: type[BaseModel]
    description: str
    takes_key: bool
    wraps: str | None = None

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the arguments."""
        return self.arguments.model_json_schema()

    def problem_of(self, arguments: Mapping[str, Any]) -> str | None:
        """The problem with these arguments, None for none."""
        try:
            self.arguments.model_validate(dict(arguments))
        except ValidationError as problem:
            return "; ".join(
                f"{'.'.join(map(str, error['loc'])) or 'arguments'}: {error['msg']}"
                for error in problem.errors(include_url=False, include_input=False)[:5]
            )
        return None

    def keywords(self, arguments: Mapping[str, Any], key: str) -> dict[str, Any]:
        """The keyword arguments of a call."""
        read = self.arguments.model_validate(dict(arguments))
        given = {self.wraps: read} if self.wraps else {name: getattr(read, name) for name in _fields(read)}
        return given | ({KEY: key} if self.takes_key else {})


class LeftError(Exception):
    """A function ended by what would end the process."""


def python_function(field: str, reference: str) -> PythonFunction:
    """The function that this reference names; raises ProgramError."""
    call = referred(field, reference)
    try:
        parameters = [*inspect.signature(call).parameters.values()]
        hints = get_type_hints(call, include_extras=True)
    except (ValueError, TypeError, NameError) as problem:
        raise ProgramError(field, f"the arguments of {reference} cannot be read: {problem}") from problem
    takes_key = any(parameter.name == KEY for parameter in parameters)
    parameters = [parameter for parameter in parameters if parameter.name != KEY]
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ProgramError(field, f"{reference}: the argument {parameter.name} needs a name of its own")
    wraps = _wrapped(parameters, hints)
    return PythonFunction(
        call=call,
        arguments=hints[wraps] if wraps else _model(field, reference, parameters, hints),
        description=inspect.getdoc(call) or "",
        takes_key=takes_key,
        wraps=wraps,
    )


def checking_function(field: str, reference: str) -> PythonFunction:
    """A function that checks a task's result; it gets `result`, and `input` if it takes that.

    Raises ProgramError.
    """
    call = referred(field, reference)
    parameters = inspect.signature(call).parameters
    taken = {name: (Any, None) for name in (RESULT, INPUT) if name in parameters}
    others = [name for name, one in parameters.items() if name not in taken and one.default is one.empty]
    if RESULT not in taken or others:
        raise ProgramError(field, f"{reference} does not take `result`, and perhaps `input`, alone")
    arguments = create_model("Checked", **taken)  # type: ignore[call-overload]
    return PythonFunction(call=call, arguments=arguments, description="", takes_key=False)


def _fields(read: BaseModel) -> list[str]:
    return list(type(read).model_fields)


def _wrapped(parameters: list[inspect.Parameter], hints: Mapping[str, Any]) -> str | None:
    """The name of the parameter if there is one alone, and it is a pydantic model."""
    if len(parameters) != 1:
        return None
    hint = hints.get(parameters[0].name)
    is_model = isinstance(hint, type) and issubclass(hint, BaseModel)
    return parameters[0].name if is_model else None


def _model(
    field: str, reference: str, parameters: list[inspect.Parameter], hints: Mapping[str, Any]
) -> type[BaseModel]:
    fields: dict[str, Any] = {
        parameter.name: (
            hints.get(parameter.name, Any),
            ... if parameter.default is parameter.empty else parameter.default,
        )
        for parameter in parameters
    }
    try:
        model = create_model("Arguments", __config__=ConfigDict(extra="forbid"), **fields)
        model.model_json_schema()
    except Exception as problem:
        raise ProgramError(field, f"the arguments of {reference} have no JSON Schema: {problem}") from problem
    return model


class FunctionTimeoutError(Exception):
    """A function did not end in time. It may still go on."""


class NotBegunError(Exception):
    """No thread was free for a function, so it was not called."""


class Functions:
    """Runs functions: coroutines in the event loop, others in threads.

    `left_behind` counts the threads that still run a function for which nobody waits any more.
    """

    def __init__(self, most_threads: int = MOST_THREADS) -> None:
        self.left_behind = 0
        self._most = most_threads
        self._places = asyncio.Semaphore(most_threads)

    @property
    def is_stuck(self) -> bool:
        """Whether every thread was left behind."""
        return self.left_behind >= self._most

    async def result(self, call: Callable[[], Any], *, is_coroutine: bool, seconds: float) -> Any:
        """Run the function; return or raise what it does. Raises FunctionTimeoutError and NotBegunError.

        A plain function waits for a thread for as long as it may then run.
        """
        if not is_coroutine:
            await self._place(seconds)
        making = asyncio.ensure_future(call() if is_coroutine else self._threaded(call))
        try:
            await asyncio.wait({making}, timeout=seconds)
            if making.done():
                return making.result()
            raise FunctionTimeoutError
        finally:
            if making.cancel() and not is_coroutine:
                self.left_behind += 1

    async def _place(self, seconds: float) -> None:
        if self.is_stuck:
            raise NotBegunError
        try:
            async with asyncio.timeout(seconds):
                await self._places.acquire()
        except TimeoutError:
            raise NotBegunError from None

    def _threaded(self, call: Callable[[], Any]) -> "asyncio.Future[Any]":
        """Begin a function in a thread, which gives the place back when it ends."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def end(result: Any, problem: BaseException | None) -> None:
            self._places.release()
            if answer.cancelled():
                self.left_behind -= 1
            elif problem is not None:
                answer.set_exception(problem)
            else:
                answer.set_result(result)

        def work() -> None:
            result, problem = None, None
            try:
                result = context.run(call)
            except BaseException as raised:
                problem = (
                    raised
                    if isinstance(raised, Exception)
                    else LeftError(f"the function left by {what_failed(raised)}")
                )
            try:
                loop.call_soon_threadsafe(end, result, problem)
            except RuntimeError:  # the worker has gone meanwhile
                log.warning("function_outlived_worker")

        try:
            threading.Thread(target=work, name="tool", daemon=True).start()
        except (RuntimeError, MemoryError) as problem:
            self._places.release()
            log.warning("thread_not_started", problem=what_failed(problem))
            raise NotBegunError from problem
        return answer
