"""The engine double and the hub's stand-in as an image and pods of the cluster."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demo import claims
from demo.environment import ROOT, Environment
from local_cluster import images
from tests.support.applied import Site, replica_set

STAND_INS = ROOT / "e2e"
HUB = "hub"
HUB_PORT = 8080
SMALL = {"requests": {"cpu": "10m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}


def stand_ins_image(demo: Environment) -> str:
    """The reference of the image of both; run without a command, it is an engine double."""
    return images.build_and_import(
        name="stand-ins",
        dockerfile=STAND_INS / "images" / "stand_ins" / "Dockerfile",
        context=STAND_INS,
        paths=("engine_double", "hub_stub"),
        arguments={"RUNTIME_IMAGE": demo.build_images()["runtime"]},
    )


def doubles(name: str, image: str, engine: Mapping[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A set whose engines are doubles, with the demo's model for the check of its files."""
    room = {"maxModelLen": 4096, "maxNumSeqs": 8, "resources": SMALL}
    described: dict[str, Any] = {
        "model": {"name": name, "source": "pvc://models/smollm2", "task": "Generate"},
        "engine": {"image": image, **room, **(engine or {})},
        "drain": {"deadlineSeconds": 5},
    }
    return replica_set(name, **{**described, **spec})


def configured(site: Site, manifest: dict[str, Any], configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The set, its doubles told by a file from a ConfigMap; see `engine_double.configuration`."""
    name = f"{manifest['metadata']['name']}-double"
    data = {"config.json": json.dumps(configuration)}
    site.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
    manifest["spec"]["engine"]["extraArgs"] = ["--config", "/etc/double/config.json"]
    manifest["spec"]["pod"] = mounted(name)
    return manifest


def mounted(config_map: str) -> dict[str, Any]:
    """A ConfigMap in the engine's container."""
    return {
        "volumes": [{"name": "double", "configMap": {"name": config_map}}],
        "volumeMounts": [{"name": "double", "mountPath": "/etc/double", "readOnly": True}],
    }


def start_hub(site: Environment, runtime: str, repositories: Mapping[str, Path], size: str) -> str:
    """A hub with these repositories, each with its folder, as a service of the namespace; its address."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for repository, model in repositories.items():
            (root / repository).parent.mkdir(parents=True, exist_ok=True)
            (root / repository).symlink_to(model)
        files = [
            str(path.relative_to(root)) for name in repositories for path in sorted((root / name).iterdir())
        ]
        claims.fill(site.kubectl, runtime, {HUB: (root, files)}, {HUB: size})
    _start_pod(site, stand_ins_image(site))
    return f"http://{HUB}.{site.kubectl.namespace}.svc"


def _start_pod(site: Environment, image: str) -> None:
    labels = {"app": HUB}
    container = {
        "name": HUB,
        "image": image,
        "command": ["python3", "-m", "hub_stub", "--root", "/hub"],
        "securityContext": claims.RESTRICTED,
        "ports": [{"containerPort": HUB_PORT}],
        "readinessProbe": {"tcpSocket": {"port": HUB_PORT}, "periodSeconds": 1},
        "volumeMounts": [{"name": HUB, "mountPath": "/hub", "readOnly": True}],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": HUB, "labels": labels},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532},
            "containers": [container],
            "volumes": [{"name": HUB, "persistentVolumeClaim": {"claimName": HUB}}],
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": HUB},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": HUB_PORT}]},
    }
    site.kubectl.apply([pod, service])
    site.kubectl.run("wait", "--for=condition=Ready", f"pod/{HUB}", "--timeout=600s", timeout_seconds=610)
