"""Continuous batching as in vLLM, in virtual time.

The engine works in steps. A step serves running sequences, then waiting ones in order of arrival, up to a
number of sequences and a budget of tokens: one token for each sequence that generates, and a piece of the
prompt for each that is in prefill. The configured speeds give the step's duration, and its tokens appear at
its end. When the KV cache is full, the youngest sequence goes back to the queue and starts over.

Nothing here reads a clock: `submit`, `abort` and `advance` are given the time, and `next_change` says when
the next step ends. Times never go backwards, and the caller advances to `now` before it submits.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from engine_double.kv_cache import BlockKey, KVCache
from engine_double.work import (
    Counters,
    Event,
    Finished,
    FinishReason,
    Generated,
    Limits,
    Record,
    Request,
    Speeds,
)


@dataclass(slots=True, kw_only=True, eq=False)
class _Sequence:
    request: Request
    arrived: float
    scheduled: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    computed: int = 0
    generated: int = 0
    cached: int = 0
    preemptions: int = 0
    shared: list[BlockKey] = field(default_factory=list)
    private: int = 0

    @property
    def total(self) -> int:
        """The tokens that must be in the KV cache before the next one can be generated."""
        return self.request.prompt_tokens + self.generated


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    ends: float
    work: tuple[tuple[_Sequence, int], ...]
    tokens: int


class Simulator:
    """One engine; `step_tokens` collects the sizes of finished steps until the caller takes them."""

    def __init__(self, speeds: Speeds, limits: Limits) -> None:
        self.speeds = speeds
        self.limits = limits
        self.cache = KVCache(
            blocks=limits.kv_blocks,
            block_tokens=limits.block_tokens,
            prefix_caching=limits.prefix_caching,
        )
        self.counters = Counters()
        self.step_tokens: list[int] = []
        self._waiting: deque[_Sequence] = deque()
        self._running: dict[str, _Sequence] = {}
        self._step: _Step | None = None

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    def next_change(self) -> float | None:
        """When the current step ends; None when the engine is idle."""
        return self._step.ends if self._step else None

    def submit(self, request: Request, now: float) -> None:
        """Queue a request; an idle engine starts a step at once."""
        assert self._step is None or self._step.ends >= now, "advance to now before submitting"
        assert self._blocks(request.prompt_tokens + request.reply_tokens) <= self.limits.kv_blocks
        self._waiting.append(_Sequence(request=request, arrived=now))
        if self._step is None:
            self._begin_step(now)

    def abort(self, request_id: str, now: float) -> list[Event]:
        """Drop a request whose caller has gone."""
        sequence = self._running.pop(request_id, None)
        if sequence is None:
            sequence = next((each for each in self._waiting if each.request.id == request_id), None)
            if sequence is None:
                return []
            self._waiting.remove(sequence)
        self._release(sequence)
        return [self._finish(sequence, now, FinishReason.ABORT)]

    def advance(self, now: float) -> list[Event]:
        """Let time pass until `now`; returns what happened up to and including it."""
        events: list[Event] = []
        while self._step is not None and self._step.ends <= now:
            step = self._step
            self.step_tokens.append(step.tokens)
            for sequence, tokens in step.work:
                if sequence.request.id in self._running:
                    events.extend(self._complete(sequence, tokens, step.ends))
            self._step = None
            self._begin_step(step.ends)
        return events

    def check(self) -> None:
        """Assert every invariant; tests call it after each step."""
        self.cache.check()
        assert self.running <= self.limits.max_num_seqs
        assert all(sequence.computed <= sequence.total for sequence in self._running.values())
        assert all(not sequence.shared and not sequence.private for sequence in self._waiting)
        assert self._step is not None or not (self._running or self._waiting), "work, and no step"

    def _begin_step(self, now: float) -> None:
        budget = self.limits.max_num_batched_tokens
        preemptions_before = self.counters.preemptions
        work: list[tuple[_Sequence, int]] = []
        for request_id, sequence in list(self._running.items()):
            if request_id not in self._running:
                continue
            tokens = min(sequence.total - sequence.computed, budget)
            if tokens and self._make_room(sequence, tokens):
                work.append((sequence, tokens))
                budget -= tokens
        if self.counters.preemptions > preemptions_before:
            work = [(sequence, tokens) for sequence, tokens in work if sequence.request.id in self._running]
        else:
            work.extend(self._admit(budget, now))
        if work:
            self._step = _Step(
                ends=now + self._duration(work), work=tuple(work), tokens=sum(tokens for _, tokens in work)
            )

    def _admit(self, budget: int, now: float) -> Iterable[tuple[_Sequence, int]]:
        while self._waiting and budget > 0 and len(self._running) < self.limits.max_num_seqs:
            sequence = self._waiting[0]
            hit_blocks = self._cached_blocks(sequence)
            shared = list(sequence.request.block_keys[:hit_blocks])
            cached = hit_blocks * self.limits.block_tokens
            tokens = min(sequence.total - cached, budget)
            private = self._blocks(cached + tokens) - hit_blocks
            if not self.cache.room_for(shared, private):
                return
            self._waiting.popleft()
            self._running[sequence.request.id] = sequence
            self.cache.hold(shared, private)
            sequence.shared, sequence.private = shared, private
            sequence.computed = cached
            self._count_admission(sequence, cached, now)
            budget -= tokens
            yield sequence, tokens

    def _count_admission(self, sequence: _Sequence, cached: int, now: float) -> None:
        if sequence.scheduled is not None:
            return
        sequence.scheduled = now
        sequence.cached = cached
        if self.limits.prefix_caching:
            self.counters.prefix_queries_tokens += sequence.total
            self.counters.prefix_hits_tokens += cached

    def _cached_blocks(self, sequence: _Sequence) -> int:
        # The last token is computed even when it is cached, because the next token comes from its result.
        usable = (sequence.total - 1) // self.limits.block_tokens
        return self.cache.cached_blocks(sequence.request.block_keys[:usable])

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.limits.block_tokens)

    def _make_room(self, sequence: _Sequence, tokens: int) -> bool:
        """Give a running sequence its next blocks, preempting the youngest; False when that was itself."""
        wanted = self._blocks(sequence.computed + tokens) - len(sequence.shared) - sequence.private
        while wanted > 0 and not self.cache.room_for((), wanted):
            _, victim = self._running.popitem()
            self._preempt(victim)
            if victim is sequence:
                return False
        if wanted > 0:
            self.cache.hold((), wanted)
            sequence.private += wanted
        return True

    def _preempt(self, victim: _Sequence) -> None:
        self._release(victim)
        victim.computed = 0
        victim.preemptions += 1
        self.counters.preemptions += 1
        self._waiting.appendleft(victim)

    def _release(self, sequence: _Sequence) -> None:
        self.cache.release(sequence.shared, sequence.private)
        sequence.shared, sequence.private = [], 0

    def _duration(self, work: list[tuple[_Sequence, int]]) -> float:
        decoding = sum(1 for sequence, _ in work if sequence.generated)
        prefill_tokens = sum(tokens for sequence, tokens in work if not sequence.generated or tokens > 1)
        seconds = prefill_tokens / self.speeds.prefill_tokens_per_second
        if decoding:
            seconds += self.speeds.decode_step_seconds
            seconds += decoding * self.speeds.decode_step_seconds_per_sequence
        return seconds

    def _complete(self, sequence: _Sequence, tokens: int, at: float) -> list[Event]:
        sequence.computed += tokens
        self._share_full_blocks(sequence)
        if sequence.computed < sequence.total:
            return []
        events: list[Event] = []
        if sequence.first_token is None:
            sequence.first_token = at
            self.counters.prompt_tokens += sequence.request.prompt_tokens
            self.counters.cached_prompt_tokens += sequence.cached
        if sequence.generated < sequence.request.reply_tokens:
            events.append(self._generate(sequence, at))
        if sequence.generated >= sequence.request.reply_tokens:
            del self._running[sequence.request.id]
            self._release(sequence)
            events.append(self._finish(sequence, at, sequence.request.finish_reason))
        return events

    def _generate(self, sequence: _Sequence, at: float) -> Generated:
        since = None if sequence.last_token is None else at - sequence.last_token
        sequence.generated += 1
        sequence.last_token = at
        self.counters.generated_tokens += 1
        return Generated(
            request_id=sequence.request.id, index=sequence.generated - 1, at=at, since_last_seconds=since
        )

    def _share_full_blocks(self, sequence: _Sequence) -> None:
        if not self.limits.prefix_caching:
            return
        full = min(sequence.computed // self.limits.block_tokens, len(sequence.request.block_keys))
        for key in sequence.request.block_keys[len(sequence.shared) : full]:
            self.cache.fill_private(key)
            sequence.shared.append(key)
            sequence.private -= 1

    def _finish(self, sequence: _Sequence, at: float, reason: FinishReason) -> Finished:
        record = Record(
            request=sequence.request,
            arrived=sequence.arrived,
            scheduled=sequence.scheduled,
            first_token=sequence.first_token,
            finished=at,
            generated_tokens=sequence.generated,
            cached_tokens=sequence.cached,
            preemptions=sequence.preemptions,
            reason=reason,
        )
        return Finished(request_id=sequence.request.id, record=record)
