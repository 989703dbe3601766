"""Whether what callers share can be counted with.

It describes the callers and no pod, so a figure that cannot be is told and left out, and holds no replica
back. The API server refuses what the spec itself refutes; what it cannot see is judged here: the longest
sequence that the model was made for, arguments of the user's own, and a revision that was gone back to.
"""

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec

FIELD = "spec.traffic.sharedPrefixTokens"
SWITCHES = {"--enable-prefix-caching": True, "--no-enable-prefix-caching": False}


def why_ignored(spec: ModelReplicaSetSpec, longest_tokens: int | None) -> str | None:
    """Why the prefix is not counted with; None where it is, or where none is told.

    `longest_tokens` is the longest sequence that the engine takes, None where it is not known.
    """
    shared = spec.traffic.shared_prefix_tokens
    if shared is None:
        return None
    if not _prompts_are_kept(spec):
        return (
            f"{FIELD} is not counted with while prefix caching is off; remove it, or turn caching on: "
            "spec.engine.prefixCaching true, and no --no-enable-prefix-caching in spec.engine.extraArgs"
        )
    if longest_tokens is not None and shared >= longest_tokens:
        return (
            f"{FIELD} is not counted with: {shared} tokens are not less than {longest_tokens}, the longest "
            "that a prompt may be with its answer; lower it"
        )
    return None


def _prompts_are_kept(spec: ModelReplicaSetSpec) -> bool:
    """Of a switch given twice the last one wins, and the user's come last."""
    names = [argument.replace("_", "-") for argument in spec.engine.extra_args]
    said = [SWITCHES[name] for name in names if name in SWITCHES]
    return said[-1] if said else spec.engine.prefix_caching
