"""Fetches a model's files to disk before an engine starts, or checks that they are there.

The init container of an engine pod runs `python -m flotilla_runtime.models`. It ends well only when every
file the engine will open has its full size; otherwise its last line, which is also the container's
termination message, says in one sentence what is wrong and which field of the ModelReplicaSet mends it.
"""
