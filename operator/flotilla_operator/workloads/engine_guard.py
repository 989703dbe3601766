"""Makes vLLM require the engine's key on every path, with unchanged images.

vLLM itself requires its key only under a few path prefixes. Its SageMaker layer loads one more middleware
from a file that an environment variable names, and runs it first. That file is engine_scripts/guard.py. Its
text is in an annotation of the pod, from which the kubelet writes the file, so it needs no further object and
never changes during the pod's life. A vLLM without that layer, or one that cannot load the file, starts too,
and then requires the key only under its own prefixes.
"""

from typing import Final

from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads.engine_checks import SCRIPTS
from flotilla_runtime import contract

ANNOTATION: Final = f"{contract.DOMAIN}/engine-guard"
ENV_MIDDLEWARE: Final = "CUSTOM_FASTAPI_MIDDLEWARE_THROTTLE"  # the SageMaker layer's name for its first one
VOLUME: Final = "engine-guard"
FILE: Final = "guard.py"
DIRECTORY: Final = f"{contract.CONFIG_DIRECTORY}/engine"
MIDDLEWARE: Final = f"{DIRECTORY}/{FILE}:Guard"
TEXT: Final = SCRIPTS.joinpath(FILE).read_text("utf-8")


def guard_volume() -> Manifest:
    """The volume with the middleware's file."""
    field = {"fieldPath": f"metadata.annotations['{ANNOTATION}']"}
    return {"name": VOLUME, "downwardAPI": {"items": [{"path": FILE, "fieldRef": field}]}}


def guard_mount() -> Manifest:
    """The mount of the middleware's file in the engine's container."""
    return {"name": VOLUME, "mountPath": DIRECTORY, "readOnly": True}
