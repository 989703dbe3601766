"""The steps of the demo: cluster, images, chart, volumes, and the objects in the demo's namespace.

The end-to-end tests call the same functions, so they test what a newcomer sees.
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
import yaml

from demo import claims
from demo.corpus import Corpus, demo_corpus, folder_corpus
from demo.kubectl import Kubectl
from demo.questions import Question
from engine.environment import ensure as ensure_engine
from engine.models import EMBEDDER, GENERATOR, ensure_models
from flotilla_cli.tasks import Answer, ask
from flotilla_runtime.contract import gateway_audience
from local_cluster import cluster, images
from local_cluster.binaries import binary
from local_cluster.directories import directories

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "agentfleet.yaml"
CHART = ROOT / "charts" / "flotilla"
SYSTEM_NAMESPACE = "flotilla-system"
DEMO_NAMESPACE = "flotilla-demo"
READY_TIMEOUT_SECONDS = 900
POLL_SECONDS = 2.0
KINDS = ("modelreplicasets", "vectorindexes", "agentfleets")
FLEET = "assistant"
ASKER = "asker"
CLAIM_SIZES = {"models": "2Gi", "documents": "1Gi"}
MODEL_FOLDERS = {GENERATOR.name: "smollm2", EMBEDDER.name: "minilm"}


class DemoError(RuntimeError):
    """A step failed; the message says why."""


def documents(folder: Path | None) -> Corpus:
    """The user's documents, or the demo's."""
    corpus = demo_corpus() if folder is None else folder_corpus(folder.expanduser().resolve())
    if not corpus.names:
        raise DemoError(
            f"the folder {corpus.folder} has no HTML, Markdown, text or PDF file in it; name another"
        )
    return corpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A cluster, and the steps that install the demo in it."""

    kubectl: Kubectl

    def build_images(self) -> Mapping[str, str]:
        """Build the images that the cluster does not have yet, and return each image's reference by name.

        The CPU engine's packages are in no image: the cluster mounts them from the cache folder.
        """
        ensure_engine()
        return images.ensure()

    def install_chart(self, references: Mapping[str, str], *extra_values: str) -> None:
        """Install or upgrade the chart with these images, and wait for the operator."""
        values = [*extra_values]
        if "engine" in references:  # the local engine is for CPUs; sets that ask for GPUs get it as well
            references = {**references, "engineCPU": references["engine"]}
        for name, reference in references.items():
            repository, _, tag = reference.rpartition(":")
            parts = {"repository": repository, "tag": tag, "digest": ""}
            values += [f"images.{name}.{key}={value}" for key, value in parts.items()]
        self.helm(
            *(
                "upgrade",
                "--install",
                "flotilla",
                str(CHART),
                "--create-namespace",
                "--wait",
                "--timeout",
                "3m",
            ),
            *(part for value in values for part in ("--set-string", value)),
        )

    def helm(self, *arguments: str) -> str:
        """Run helm in the operator's namespace."""
        scope = ["--kubeconfig", str(self.kubectl.kubeconfig), "--namespace", SYSTEM_NAMESPACE]
        command = [str(binary("helm")), *arguments, *scope]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise DemoError(f"helm: {done.stderr.strip()}")
        return done.stdout

    def fill_claims(self, corpus: Corpus, image: str) -> None:
        """Make the namespace, with restricted pod security enforced, and fill its two claims.

        `image` is any image with sleep, find and tar in it.
        """
        self.make_namespace()
        with model_folders(MODEL_FOLDERS) as models:
            contents = {"models": models, "documents": (corpus.folder, corpus.names)}
            claims.fill(self.kubectl, image, contents, CLAIM_SIZES)

    def make_namespace(self, level: str = "restricted") -> None:
        """The demo's namespace, with this level of pod security."""
        name = self.kubectl.namespace
        labels = {f"pod-security.kubernetes.io/{mode}": level for mode in ("enforce", "warn")}
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        self.kubectl.run("apply", "--filename", "-", stdin=json.dumps(manifest))

    def apply(self, manifest: Path, revision: str | None = None) -> None:
        """Apply the file's objects; a new `revision` makes the index read its documents again."""
        objects = [item for item in yaml.safe_load_all(manifest.read_text()) if item is not None]
        for item in objects:
            if revision is not None and item["kind"] == "VectorIndex":
                item["spec"]["source"]["revision"] = revision
        self.kubectl.apply(objects)

    def wait_until_ready(self, timeout_seconds: int = READY_TIMEOUT_SECONDS) -> None:
        """Wait until every object's condition Ready is true; print each new reason why one is not."""
        deadline = time.monotonic() + timeout_seconds
        told: Mapping[str, str] = {}
        while waiting := self.not_ready():
            for name, why in waiting.items():
                if told.get(name) != why:
                    print(f"   {name}: {why}", flush=True)
            told = waiting
            if time.monotonic() > deadline:
                lines = "\n".join(f"  {name}: {why}" for name, why in waiting.items())
                raise DemoError(f"these objects are not ready after {timeout_seconds} s:\n{lines}")
            time.sleep(POLL_SECONDS)

    def not_ready(self) -> Mapping[str, str]:
        """Each object that is not ready, with the reason and message of its condition Ready."""
        found = {}
        for item in self.kubectl.get(",".join(KINDS))["items"]:
            status = item.get("status", {})
            ready = next((c for c in status.get("conditions", ()) if c["type"] == "Ready"), None)
            if status.get("observedGeneration") != item["metadata"]["generation"] or ready is None:
                why = "the operator has not yet written the status of this generation"
            elif ready["status"] != "True":
                why = f"{ready['reason']}: {ready['message']}"
            else:
                continue
            found[f"{item['kind']}/{item['metadata']['name']}"] = why
        return found

    def token(self) -> str:
        """A token of a service account that may submit tasks to the fleet and read them."""
        self.kubectl.apply(_asker(str(self.kubectl.namespace)))
        audience = gateway_audience(str(self.kubectl.namespace), FLEET)
        return self.kubectl.run("create", "token", ASKER, "--duration=1h", f"--audience={audience}").strip()

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[Question, Answer]]:
        """Put the questions to the fleet, one after the other."""
        headers = {"Authorization": f"Bearer {self.token()}"}
        with (
            self.kubectl.port_forward(f"service/{FLEET}-gateway", 8080) as port,
            httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30) as client,
        ):
            for question in questions:
                yield question, ask(client, question.text)

    def remove(self) -> None:
        """Delete the demo's namespace, then the chart; helm leaves the custom resource definitions."""
        name = str(self.kubectl.namespace)
        replace(self.kubectl, namespace=None).run(
            "delete", "namespace", name, "--ignore-not-found", "--wait", timeout_seconds=300
        )
        self.helm("uninstall", "flotilla", "--ignore-not-found", "--wait")


@contextmanager
def model_folders(folders: Mapping[str, str]) -> Iterator[tuple[Path, Sequence[str]]]:
    """A folder that holds these models, each under its short name, and the names of its files."""
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        for name, short in folders.items():
            (root / short).symlink_to(ensure_models() / name)
        files = [path for short in folders.values() for path in (root / short).iterdir()]
        yield root, sorted(str(path.relative_to(root)) for path in files)


def existing() -> Environment:
    """The cluster that runs; DemoError when there is none."""
    if not directories().kubeconfig.exists():
        raise DemoError("there is no local cluster; start one with `make cluster-up`")
    return Environment(
        kubectl=Kubectl(
            binary=binary("kubectl"), kubeconfig=directories().kubeconfig, namespace=DEMO_NAMESPACE
        )
    )


def up() -> Environment:
    """Start the local cluster, or find it running."""
    cluster.up()
    return existing()


def _asker(namespace: str) -> list[dict[str, object]]:
    name = {"name": ASKER}
    rbac = "rbac.authorization.k8s.io"
    rule = {
        "apiGroups": ["flotilla.dev"],
        "resources": ["agentfleets/tasks"],
        "resourceNames": [FLEET],
        "verbs": ["create", "get"],
    }
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": name},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": name, "rules": [rule]},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": name,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": ASKER},
            "subjects": [{"kind": "ServiceAccount", "name": ASKER, "namespace": namespace}],
        },
    ]
