"""An OpenAI-compatible server that imitates vLLM without a model.

For what a small real model on two cores cannot show: hundreds of streams at once, speeds and queues that a
test chooses, planning that goes as scripted, faults at a chosen moment. The batching, the KV cache and its
prefix hits are a pure simulation (`simulator`, `kv_cache`); around it stand a web server and vLLM's metrics
under vLLM's names. A contract test holds its answers and its metrics against the real engine.
"""
