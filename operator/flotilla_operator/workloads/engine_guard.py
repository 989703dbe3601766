"""How the engine's key comes to guard every path, without an image of ours.

vLLM asks for its key under a few prefixes. The SageMaker layer that it carries takes one more middleware from
a file that an environment variable names, and puts it in front: that file is engine_scripts/guard.py. It
stands in an annotation of the pod, from where the kubelet writes it, so it needs no object beside the pod and
is as old as the pod. A vLLM without that layer, or one that cannot load the file, starts all the same and
guards what it guards by itself.
"""

from typing import Final

from flotilla_operator.workloads.engine_checks import SCRIPTS
from flotilla_operator.workloads.labels import Manifest
from flotilla_runtime import contract

ANNOTATION: Final = f"{contract.DOMAIN}/engine-guard"
ENV_MIDDLEWARE: Final = "CUSTOM_FASTAPI_MIDDLEWARE_THROTTLE"  # the layer's own name for what comes first
VOLUME: Final = "engine-guard"
FILE: Final = "guard.py"
DIRECTORY: Final = f"{contract.CONFIG_DIRECTORY}/engine"
MIDDLEWARE: Final = f"{DIRECTORY}/{FILE}:Guard"
TEXT: Final = SCRIPTS.joinpath(FILE).read_text("utf-8")


def guard_volume() -> Manifest:
    """The volume with the file."""
    field = {"fieldPath": f"metadata.annotations['{ANNOTATION}']"}
    return {"name": VOLUME, "downwardAPI": {"items": [{"path": FILE, "fieldRef": field}]}}


def guard_mount() -> Manifest:
    """Where the engine's container finds it."""
    return {"name": VOLUME, "mountPath": DIRECTORY, "readOnly": True}
