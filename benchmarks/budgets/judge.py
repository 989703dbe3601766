"""The checker: the budgets in Redis, the journals, and the model's own count must agree. Pure.

It shares no code with the runtime. Amounts are steps, tokens and billionths of a dollar.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from budgets.plans import INPUT_USD, NANO_USD_PER_USD, OUTPUT_USD
from fleet.facts import Entry, TaskFacts
from fleet.generations import Generation

AMOUNTS: Final = ("Steps", "Tokens", "Nano")
SUCCEEDED: Final = "Succeeded"
TOKENS_PER_PRICE: Final = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Facts that the checker looks at.

    `roots` has the id of each tree's root, `seen` the hashes of roots as they were read while trees ran.
    """

    roots: Mapping[int, str]
    tasks: Mapping[str, TaskFacts]
    seen: Sequence[Mapping[str, str]]
    generations: Sequence[Generation]


@dataclass(slots=True, kw_only=True)
class Verdict:
    """By how much limits were exceeded, what was never given back, and where counts differ; and in words."""

    overshoot: int = 0
    leaked: int = 0
    unbalanced_tokens: int = 0
    unended: int = 0
    words: list[str] = field(default_factory=list)

    def note(self, figure: str, amount: int, what: str) -> None:
        """Add an amount to a figure."""
        if amount:
            setattr(self, figure, getattr(self, figure) + amount)
            self.words.append(f"{figure}: {amount} {what}")


def judge(evidence: Evidence) -> Verdict:
    """Look at every tree."""
    verdict = Verdict()
    for hash_of_root in evidence.seen:
        for amount, excess in _excess(hash_of_root):
            verdict.note("overshoot", excess, f"{amount} while tree {hash_of_root.get('id')} ran")
    by_tree: dict[int, list[Generation]] = defaultdict(list)
    for generation in evidence.generations:
        by_tree[generation.task].append(generation)
    for tree, root in evidence.roots.items():
        _judge_tree(verdict, tree, _tasks_of(root, evidence.tasks), by_tree[tree])
    return verdict


def journal_tokens(entries: Iterable[Entry]) -> int:
    """The tokens that a journal says were used.

    These are the tokens of results, those that lost tries had reserved, and those that a call had used when
    it reserved anew.
    """
    used, open_calls = 0, dict[str, int]()
    for entry in entries:
        if entry.type == "Intended":
            lost = open_calls.get(entry.call, 0)
            used += int(entry.fields.get("spent_tokens", lost))
            open_calls[entry.call] = int(entry.fields.get("reserved_tokens", 0))
        elif entry.type == "Done" and entry.call in open_calls:
            del open_calls[entry.call]
            used += _tokens(entry)
    return used + sum(open_calls.values())


def _judge_tree(
    verdict: Verdict, tree: int, tasks: Sequence[TaskFacts], generations: Sequence[Generation]
) -> None:
    if not tasks:
        verdict.note("unended", 1, f"tree {tree} is not in Redis")
        return
    root, unended = tasks[0].fields, sum(not task.has_ended for task in tasks)
    verdict.note("unended", unended, f"tasks of tree {tree}")
    for amount, excess in (*_excess(root), *_excess_by_model(root, generations)):
        verdict.note("overshoot", excess, f"{amount} of tree {tree}")
    if unended:
        return  # what its calls hold is no leak yet
    for amount in AMOUNTS:
        verdict.note("leaked", abs(_number(root, f"held{amount}")), f"{amount} of tree {tree} stay reserved")
    used = _number(root, "usedTokens")
    told = sum(journal_tokens(task.entries) for task in tasks)
    verdict.note(
        "unbalanced_tokens", abs(used - told), f"of tree {tree}: {used} used, {told} in its journals"
    )
    by_model = sum(each.tokens for each in generations if each.is_whole is not None)
    verdict.note(
        "unbalanced_tokens", max(0, by_model - used), f"of tree {tree}: the model counted {by_model}"
    )
    for name, told, counted in _single_calls(tasks, generations):
        verdict.note("unbalanced_tokens", abs(told - counted), f"in {name}: {told} told, {counted} counted")


def _excess(root: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """By how much what is used and reserved exceeds each limit."""
    for amount in AMOUNTS:
        if f"most{amount}" in root:
            committed = _number(root, f"used{amount}") + _number(root, f"held{amount}")
            yield amount, max(0, committed - _number(root, f"most{amount}"))


def _excess_by_model(root: Mapping[str, str], generations: Sequence[Generation]) -> Iterator[tuple[str, int]]:
    """The same by the model's count: calls that arrived are steps, tries of one call are one."""
    ended = [each for each in generations if each.is_whole is not None]
    prompts = sum(each.prompt_tokens for each in ended)
    answers = sum(each.generated_tokens for each in ended)
    nano = (prompts * INPUT_USD + answers * OUTPUT_USD) * NANO_USD_PER_USD / TOKENS_PER_PRICE
    counted = {
        "Steps": len({each.step for each in generations}),
        "Tokens": prompts + answers,
        "Nano": int(nano),
    }
    for amount, value in counted.items():
        if f"most{amount}" in root:
            yield f"{amount} by the model's count", max(0, value - _number(root, f"most{amount}"))


def _single_calls(
    tasks: Sequence[TaskFacts], generations: Sequence[Generation]
) -> Iterator[tuple[str, int, int]]:
    """The calls that were answered at their first try: their tokens by the journal and by the model."""
    begun = Counter(each.step for each in generations if each.is_whole is None)
    whole = {each.step: each.tokens for each in generations if each.is_whole and begun[each.step] == 1}
    for task in tasks:
        for entry in task.entries:
            step = _step_of(entry.call)
            if step in whole and _is_one_answer(entry):
                yield entry.call, _tokens(entry), whole[step]


def _is_one_answer(entry: Entry) -> bool:
    """Whether the call was answered at its first try; a try that failed counts as its reserve."""
    return entry.type == "Done" and entry.fields["outcome"] == SUCCEEDED and entry.fields.get("tries", 1) == 1


def _step_of(call: str) -> str:
    """The name of the call's scope: what the prompt has in brackets."""
    return "/".join(call.split("/")[:2])


def _tasks_of(root: str, tasks: Mapping[str, TaskFacts]) -> list[TaskFacts]:
    """The root, then the tasks that were spawned under it."""
    spawned = [task for task in tasks.values() if task.fields.get("root") == root and task.id != root]
    return [tasks[root], *spawned] if root in tasks else []


def _tokens(entry: Entry) -> int:
    return int(entry.fields.get("input_tokens", 0)) + int(entry.fields.get("output_tokens", 0))


def _number(fields: Mapping[str, str], name: str) -> int:
    return int(fields.get(name, 0) or 0)
