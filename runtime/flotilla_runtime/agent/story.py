"""Where a task stands, read from its journal: the fold that makes a task durable.

The same function serves a task's first worker and the one that takes over after a crash. A call with a result
is never made again; one with an intent alone is made again under the same id, and the tokens set aside for
the lost try count as spent, because a model may well have spent them. So no budget is overspent by a crash.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flotilla_runtime.agent.journal import CallKind, Claimed, Done, Ended, Entry, Intended


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A journal, summed up.

    `reserved_tokens` are those of calls without a result, lost tries included; `steps` counts turns of the
    loop.
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
        """What counts against the budget."""
        return self.used_tokens + self.reserved_tokens

    def results_of(self, kind: CallKind) -> list[Done]:
        """The results of one kind of call, in the order they came."""
        return [done for call, done in self.results.items() if self.intents[call].kind is kind]

    def busy_ms(self) -> dict[str, int]:
        """The time the calls took, by what was called."""
        busy: dict[str, int] = {}
        for call, done in self.results.items():
            intent = self.intents[call]
            part = f"{'Model' if intent.kind is CallKind.MODEL else 'Index'}/{intent.target}"
            busy[part] = busy.get(part, 0) + done.took_ms
        return busy


def read(entries: Iterable[Entry]) -> Story:
    """Sum a journal up."""
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
