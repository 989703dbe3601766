"""An OpenAI-compatible server that imitates vLLM without a model.

Tests use it for what a small real model on two cores cannot do: hundreds of streams at once, chosen speeds
and queues, scripted answers and tool calls, and faults at a chosen moment. Batching, the KV cache and its
prefix hits are a pure simulation (`simulator`, `kv_cache`). A web server puts vLLM's paths and metrics around
it. A contract test compares its answers and metrics with those of the real engine.
"""
