"""Sums a task's journal up into its state; this is what makes a task durable.

The first worker of a task and one that takes over after a crash use the same function. A call with a result
is never made again. A call with only an intent is made again with the same id, and the tokens reserved for
the lost try count as used, because the model may have used them. So a crash cannot overspend a budget.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flotilla_runtime.agent.journal import CallKind, Claimed, Done, Ended, Entry, Intended


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """The summary of a journal.

    `reserved_tokens` are the tokens of calls without a result, including lost tries. `steps` counts the turns
    of the loop.
    """

    length: int = 0
    attempts: int = 0
    steps: int = 0
    used_tokens: int = 0
    reserved_tokens: int = 0
    open_calls: Mapping[str, Intended] = field(default_factory=dict)
    results: Mapping[str, Done] = field(default_factory=dict)
    intents: Mapping[str, Intended] = field(default_factory=dict)
    ended: Ended | None = None

    @property
    def committed_tokens(self) -> int:
        """The tokens that count against the budget."""
        return self.used_tokens + self.reserved_tokens

    def results_of(self, kind: CallKind) -> list[Done]:
        """The results of one kind of call, in the order in which they arrived."""
        return [done for call, done in self.results.items() if self.intents[call].kind is kind]

    def busy_ms(self) -> dict[str, int]:
        """The time that the calls took, by model and index."""
        busy: dict[str, int] = {}
        for call, done in self.results.items():
            intent = self.intents[call]
            part = f"{'Model' if intent.kind is CallKind.MODEL else 'Index'}/{intent.target}"
            busy[part] = busy.get(part, 0) + done.took_ms
        return busy


def read(entries: Iterable[Entry]) -> Story:
    """The summary of a journal."""
    length = attempts = used = reserved = 0
    intents: dict[str, Intended] = {}
    open_calls: dict[str, Intended] = {}
    results: dict[str, Done] = {}
    ended = None
    for entry in entries:
        length += 1
        match entry:
            case Claimed():
                attempts = entry.attempt
            case Intended():
                intents[entry.call] = open_calls[entry.call] = entry
                reserved += entry.reserved_tokens
            case Done() if entry.call in open_calls:
                reserved -= open_calls.pop(entry.call).reserved_tokens
                used += entry.input_tokens + entry.output_tokens
                results[entry.call] = entry
            case Ended():
                ended = entry
    return Story(
        length=length,
        attempts=attempts,
        steps=len({intent.step for intent in intents.values()}),
        used_tokens=used,
        reserved_tokens=reserved,
        open_calls=open_calls,
        results=results,
        intents=intents,
        ended=ended,
    )
