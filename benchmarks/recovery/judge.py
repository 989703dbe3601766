"""The checker: from what stands in Redis and in the logs of the servers to what went wrong. Pure.

It shares no code with the runtime. What must have happened it knows from the plans of the tasks; what did
happen, from the servers that were called. A step is named by task and step, whatever key it was called with.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fleet.arrivals import Arrival
from fleet.calls import UNSAFE, Kind
from fleet.facts import Entry, TaskFacts
from recovery.plans import Step

CLOCK_MARGIN_MS = 250  # workers count Redis' time on by a clock of their own
SUCCEEDED = "Succeeded"
NOT_HAPPENED = "NotHappened"
EFFECT = "Effect"

Key = tuple[int, str]  # task and step


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that the checker looks at. `submitted` has the id that was answered for each task's number."""

    submitted: Mapping[int, str]
    plans: Mapping[int, Sequence[Step]]
    tasks: Mapping[str, TaskFacts]
    arrivals: Sequence[Arrival]


@dataclass(slots=True, kw_only=True)
class Verdict:
    """Faults that were found, in words."""

    lost: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    keyed_effects_doubled: list[str] = field(default_factory=list)
    unsafe_effects_repeated: list[str] = field(default_factory=list)
    finished_calls_repeated: list[str] = field(default_factory=list)


def judge(evidence: Evidence) -> Verdict:
    """Look at every task and every arrival."""
    arrived: dict[Key, list[Arrival]] = defaultdict(list)
    for arrival in evidence.arrivals:
        arrived[arrival.task, arrival.step].append(arrival)
    return Verdict(
        lost=[*_missing_tasks(evidence), *_missing_effects(evidence, arrived)],
        given_up=list(_given_up(evidence)),
        keyed_effects_doubled=list(_doubled(arrived)),
        unsafe_effects_repeated=list(_repeated_unsafe(arrived)),
        finished_calls_repeated=list(_repeated_finished(evidence, arrived)),
    )


def step_of(call: str) -> str:
    """The step that a call belongs to: the scope that it is in."""
    return call.split("/")[0]


def _missing_tasks(evidence: Evidence) -> Iterator[str]:
    for number, task_id in evidence.submitted.items():
        task = evidence.tasks.get(task_id)
        if task is None:
            yield f"task {number} ({task_id}) was answered and is not in Redis"
        elif not task.has_ended:
            yield f"task {number} ({task_id}) has not ended: it is {task.status or 'without a status'}"


def _missing_effects(evidence: Evidence, arrived: Mapping[Key, list[Arrival]]) -> Iterator[str]:
    """A task that succeeded has made every step of its plan."""
    for number, task_id in evidence.submitted.items():
        task = evidence.tasks.get(task_id)
        if task is None or task.status != SUCCEEDED:
            continue
        for step in evidence.plans[number]:
            if not any(one.kind == step.kind for one in arrived.get((number, step.name), ())):
                yield f"task {number} succeeded, and {step.name} ({step.kind}) has never arrived"


def _given_up(evidence: Evidence) -> Iterator[str]:
    for number, task_id in evidence.submitted.items():
        task = evidence.tasks.get(task_id)
        if task is not None and task.has_ended and task.status != SUCCEEDED:
            told = task.fields.get("message", "")
            yield f"task {number} ({task_id}) ended as {task.fields.get('reason', '')}: {told}"


def _doubled(arrived: Mapping[Key, list[Arrival]]) -> Iterator[str]:
    for (task, step), each in arrived.items():
        applied = [one for one in each if one.kind == Kind.BOOK and one.applied]
        if len(applied) > 1:
            keys = len({one.key for one in applied})
            yield f"task {task} {step} (book) happened {len(applied)} times, with {keys} keys"


def _repeated_unsafe(arrived: Mapping[Key, list[Arrival]]) -> Iterator[str]:
    for (task, step), each in arrived.items():
        happened = [one for one in each if one.kind in UNSAFE]
        if len(happened) > 1:
            after = ", ".join(f"{one.at - happened[0].at} ms" for one in happened[1:])
            yield f"task {task} {step} ({happened[0].kind}) happened again after {after}"


def _repeated_finished(evidence: Evidence, arrived: Mapping[Key, list[Arrival]]) -> Iterator[str]:
    """A call is finished from its result in the journal on."""
    for number, task_id in evidence.submitted.items():
        task = evidence.tasks.get(task_id)
        if task is None:
            continue
        finished: dict[str, Entry] = {}
        for entry in _results(task):
            if entry.call in finished:
                yield f"task {number} {entry.call} has two results in its journal"
            finished.setdefault(entry.call, entry)
        for call, entry in finished.items():
            latest = entry.at + CLOCK_MARGIN_MS
            for one in arrived.get((number, step_of(call)), ()):
                if one.at > latest:
                    yield f"task {number} {call} arrived again {one.at - entry.at} ms after its result"


def _results(task: TaskFacts) -> Iterable[Entry]:
    """The results that count: a call of which somebody said that it did not happen may be made again."""
    return (
        entry
        for entry in task.entries
        if entry.type == "Done" and entry.fields.get("outcome") != NOT_HAPPENED
    )
