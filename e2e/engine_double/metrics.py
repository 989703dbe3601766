"""vLLM's metrics with vLLM's names, types, labels and buckets, fed from the simulator.

Only those that Flotilla or its users read. The contract test compares each of them with a real engine, so it
fails when vLLM changes a name.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from engine_double.simulator import Simulator
from engine_double.work import Event, Finished, Generated, Record

LABELS = ("model_name", "engine")
ENGINE = "0"
FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")
WAITING_REASONS = ("capacity", "deferred")

TOKEN_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
STEP_TOKEN_BUCKETS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384)
FIRST_TOKEN_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
BETWEEN_TOKENS_BUCKETS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
LATENCY_BUCKETS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0),
    *(40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)

GAUGES = {
    "num_requests_running": "Number of requests in model execution batches.",
    "num_requests_waiting": "Number of requests waiting to be processed.",
    "kv_cache_usage_perc": "KV-cache usage. 1 means 100 percent usage.",
}
COUNTERS = {
    "prefix_cache_queries": "Prefix cache queries, in tokens.",
    "prefix_cache_hits": "Prefix cache hits, in tokens.",
    "num_preemptions": "Preemptions by the engine.",
    "prompt_tokens": "Prompt tokens processed.",
    "prompt_tokens_cached": "Prompt tokens found in the cache.",
    "generation_tokens": "Tokens generated.",
}
HISTOGRAMS: dict[str, tuple[str, Sequence[float]]] = {
    "iteration_tokens_total": ("Tokens of one engine step.", STEP_TOKEN_BUCKETS),
    "time_to_first_token_seconds": ("Time to first token.", FIRST_TOKEN_BUCKETS),
    "inter_token_latency_seconds": ("Time between two tokens.", BETWEEN_TOKENS_BUCKETS),
    "request_time_per_output_token_seconds": ("Mean time per token of a request.", BETWEEN_TOKENS_BUCKETS),
    "e2e_request_latency_seconds": ("Time from arrival to the last token.", LATENCY_BUCKETS),
    "request_queue_time_seconds": ("Time in the queue.", LATENCY_BUCKETS),
    "request_inference_time_seconds": ("Time in the batch.", LATENCY_BUCKETS),
    "request_prefill_time_seconds": ("Time from the batch to the first token.", LATENCY_BUCKETS),
    "request_decode_time_seconds": ("Time from the first token to the last.", LATENCY_BUCKETS),
}
TOKEN_HISTOGRAMS = {
    "request_prompt_tokens": "Prompt tokens of a request.",
    "request_generation_tokens": "Generated tokens of a request.",
    "request_params_max_tokens": "The limit that requests asked for.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The values of the labels, and of the information metric."""

    model: str
    max_model_len: int
    kv_blocks: int
    block_tokens: int
    prefix_caching: bool


class EngineMetrics:
    """One engine's registry; `observe` takes the simulator's events, `render` returns the metrics' text."""

    def __init__(self, identity: Identity) -> None:
        self._registry = CollectorRegistry()
        self._labels = {"model_name": identity.model, "engine": ENGINE}
        self._gauges = {name: self._labelled(Gauge, name, text) for name, text in GAUGES.items()}
        self._counters = {name: self._labelled(Counter, name, text) for name, text in COUNTERS.items()}
        self._counted = dict.fromkeys(COUNTERS, 0)
        token_buckets = [limit for limit in TOKEN_BUCKETS if limit <= identity.max_model_len]
        tables = HISTOGRAMS | {name: (text, token_buckets) for name, text in TOKEN_HISTOGRAMS.items()}
        self._histograms = {
            name: self._labelled(Histogram, name, text, buckets=buckets)
            for name, (text, buckets) in tables.items()
        }
        self._success = self._by(Counter, "request_success", "finished_reason", FINISH_REASONS)
        self._waiting_by = self._by(Gauge, "num_requests_waiting_by_reason", "reason", WAITING_REASONS)
        self._describe_cache(identity)

    def observe(self, events: Iterable[Event]) -> None:
        """Count these events."""
        for event in events:
            if isinstance(event, Generated):
                if event.since_last_seconds is not None:
                    self._histograms["inter_token_latency_seconds"].observe(event.since_last_seconds)
            elif isinstance(event, Finished):
                self._observe_record(event.record)

    def observe_limit(self, max_tokens: int) -> None:
        """Count the token limit of a request."""
        self._histograms["request_params_max_tokens"].observe(max_tokens)

    def render(self, simulator: Simulator) -> bytes:
        """The metrics as the text of GET /metrics."""
        self._gauges["num_requests_running"].set(simulator.running)
        self._gauges["num_requests_waiting"].set(simulator.waiting)
        self._waiting_by["capacity"].set(simulator.waiting)
        self._gauges["kv_cache_usage_perc"].set(simulator.cache.usage)
        self._count(simulator)
        for tokens in simulator.step_tokens:
            self._histograms["iteration_tokens_total"].observe(tokens)
        simulator.step_tokens.clear()
        return generate_latest(self._registry)

    def _count(self, simulator: Simulator) -> None:
        counters = simulator.counters
        now = {
            "prefix_cache_queries": counters.prefix_queries_tokens,
            "prefix_cache_hits": counters.prefix_hits_tokens,
            "num_preemptions": counters.preemptions,
            "prompt_tokens": counters.prompt_tokens,
            "prompt_tokens_cached": counters.cached_prompt_tokens,
            "generation_tokens": counters.generated_tokens,
        }
        for name, value in now.items():
            self._counters[name].inc(value - self._counted[name])
        self._counted = now

    def _observe_record(self, record: Record) -> None:
        self._success[record.reason.value].inc()
        seconds = {
            "e2e_request_latency_seconds": record.finished - record.arrived,
            **_phases(record),
        }
        for name, value in seconds.items():
            self._histograms[name].observe(value)
        self._histograms["request_prompt_tokens"].observe(record.request.prompt_tokens)
        self._histograms["request_generation_tokens"].observe(record.generated_tokens)

    def _labelled(self, kind: Any, name: str, text: str, **options: Any) -> Any:
        metric = kind(f"vllm:{name}", text, labelnames=LABELS, registry=self._registry, **options)
        return metric.labels(**self._labels)

    def _by(self, kind: Any, name: str, label: str, values: Sequence[str]) -> dict[str, Any]:
        metric = kind(f"vllm:{name}", name, labelnames=(*LABELS, label), registry=self._registry)
        return {value: metric.labels(**self._labels, **{label: value}) for value in values}

    def _describe_cache(self, identity: Identity) -> None:
        described = {
            "engine": ENGINE,
            "block_size": str(identity.block_tokens),
            "num_gpu_blocks": str(identity.kv_blocks),
            "enable_prefix_caching": str(identity.prefix_caching),
            "kv_cache_size_tokens": str(identity.kv_blocks * identity.block_tokens),
        }
        metric = Gauge(
            "vllm:cache_config_info",
            "The cache's configuration.",
            labelnames=tuple(described),
            registry=self._registry,
        )
        metric.labels(**described).set(1)


def _phases(record: Record) -> dict[str, float]:
    """The seconds of each phase that the request reached."""
    if record.scheduled is None:
        return {}
    phases = {
        "request_queue_time_seconds": record.scheduled - record.arrived,
        "request_inference_time_seconds": record.finished - record.scheduled,
    }
    if record.first_token is not None:
        phases["time_to_first_token_seconds"] = record.first_token - record.arrived
        phases["request_prefill_time_seconds"] = record.first_token - record.scheduled
        phases["request_decode_time_seconds"] = record.finished - record.first_token
        if record.generated_tokens > 1:
            between = (record.finished - record.first_token) / (record.generated_tokens - 1)
            phases["request_time_per_output_token_seconds"] = between
    return phases
