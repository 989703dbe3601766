"""An OpenAI-compatible server that imitates vLLM without a model.

Tests use it for what a small real model on two cores cannot do: hundreds of streams at once, chosen speeds
and queues, scripted answers and tool calls, and faults at a chosen moment. Batching, the KV cache and its
prefix hits are a pure simulation (`simulator`, `kv_cache`). A web server puts vLLM's paths and metrics around
it. A contract test compares its answers and metrics with those of the real engine.

What it says to a chat is the first of these:

1. A reply of the script that matches (`replies`). The script is a list, its replies are used up, and it is
   lost with the process: good for one conversation.
2. The turn of the plan that a message of the conversation names or holds (`plans`). Plans need no memory:
   good for hundreds of agents at once, and for doubles that are killed.
3. What the request forces: a call of the tool that `tool_choice` names, or of the first one for `required`; a
   document that satisfies the schema of `response_format` (`constrained`).
4. Filler text of `reply_tokens` tokens.

With `continue_final_message` it says what is left of that. Faults, those of streams among them, are set by
the configuration, by `--faults` or by POST /admin/faults (`faults`).
"""
