"""Fetches a model's files before an engine starts, or checks that they exist.

The init container of an engine pod runs `python -m flotilla_runtime.models`. It succeeds only when every file
that the engine will open has its full size. Otherwise its last line, which is also the container's
termination message, says what is wrong and which field of the ModelReplicaSet to change.
"""
