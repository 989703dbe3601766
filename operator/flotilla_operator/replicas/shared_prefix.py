"""Decides whether the prompt prefix that callers share can be used in sizing.

The prefix describes the callers and not the pods. A value that cannot be right is therefore reported and
ignored, and holds no replica back. The API server refuses values that the spec alone contradicts. What it
cannot know is judged here: the longest sequence of the model, the user's own arguments, and a revision that
was rolled back to.
"""

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec

FIELD = "spec.traffic.sharedPrefixTokens"
SWITCHES = {"--enable-prefix-caching": True, "--no-enable-prefix-caching": False}


def why_ignored(spec: ModelReplicaSetSpec, longest_tokens: int | None) -> str | None:
    """Why the prefix is ignored; None when it is used, or when none is set.

    `longest_tokens` is the longest sequence that the engine takes; None when it is not known.
    """
    shared = spec.traffic.shared_prefix_tokens
    if shared is None:
        return None
    if not _prompts_are_kept(spec):
        return (
            f"{FIELD} is ignored while prefix caching is off; remove it, or turn prefix caching on: set "
            "spec.engine.prefixCaching to true and remove --no-enable-prefix-caching from "
            "spec.engine.extraArgs"
        )
    if longest_tokens is not None and shared >= longest_tokens:
        return (
            f"{FIELD} is ignored: {shared} tokens are not less than {longest_tokens}, the most that a prompt "
            "and its answer may have together; lower it"
        )
    return None


def _prompts_are_kept(spec: ModelReplicaSetSpec) -> bool:
    """Whether prefix caching is on. Of a repeated switch the last one wins, and the user's come last."""
    names = [argument.replace("_", "-") for argument in spec.engine.extra_args]
    said = [SWITCHES[name] for name in names if name in SWITCHES]
    return said[-1] if said else spec.engine.prefix_caching
