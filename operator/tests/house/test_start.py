"""Commands that the pages print are right, as far as that can be known without a cloud.

Commands of helm set values of the chart, files that commands name exist, and objects are valid. The pages of
docs/start/ say at their top what was never tried.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from flotilla_operator.api.agent_fleet import AgentFleet
from flotilla_operator.api.model_replica_set import ModelReplicaSet
from flotilla_operator.api.vector_index import VectorIndex
from tests.house.test_pages import PAGES, ROOT

START = sorted((ROOT / "docs" / "start").glob("*.md"))
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
CHART = ROOT / "charts" / "flotilla"
KINDS: Mapping[str, type[BaseModel]] = {
    "AgentFleet": AgentFleet,
    "ModelReplicaSet": ModelReplicaSet,
    "VectorIndex": VectorIndex,
}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTION = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
TAGGED = re.compile(r"--tag \$REGISTRY/([\w-]+):([\w.-]+)")
CREATED = re.compile(r'(?:kindest/node:v|--cluster-version=|--kubernetes-version |version: ")(1\.\d+)')
OUR_FOLDERS = ("charts/", "crds/", "e2e/", "examples/")
OURS = ("operator", "runtime", "milvus")


def blocks(text: str, *languages: str) -> Iterator[str]:
    """The code blocks of these languages."""
    return (code for language, code in BLOCK.findall(text) if language in languages)


def commands(text: str) -> Iterator[list[str]]:
    """The words of each line of the shell blocks that is a whole command; a comment ends a line."""
    for block in blocks(text, "sh", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            try:
                yield shlex.split(line.removeprefix("$ "), comments=True)
            except ValueError:
                continue  # text in quotes over several lines


def of_our_chart(text: str) -> Iterator[list[str]]:
    """The commands of helm that install or upgrade our chart."""
    return (words for words in commands(text) if words[:1] == ["helm"] and "charts/flotilla" in words)


def options(words: Sequence[str], option: str) -> Iterator[str]:
    """The values of an option."""
    return (after for word, after in pairwise(words) if word == option)


def unknown(path: Sequence[str], schema: Mapping[str, Any]) -> bool:
    """Whether the schema of the chart's values has no such value."""
    for name in path:
        properties = schema.get("properties", {})
        if name not in properties:
            return schema.get("additionalProperties", True) is False or "properties" in schema
        schema = _resolved(properties[name])
    return False


def leaves(document: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all values of a document; a list is one value."""
    if isinstance(document, dict) and document:
        for name, inner in document.items():
            yield from leaves(inner, (*path, name))
    else:
        yield path


def wrong_values(text: str) -> list[str]:
    """The values that commands of a page set and that the chart has not."""
    paths = [
        value.partition("=")[0]
        for words in of_our_chart(text)
        for option in ("--set", "--set-string", "--set-json")
        for value in options(words, option)
    ]
    return [path for path in paths if unknown(path.split("."), schema_of_values())]


def schema_of_values() -> Mapping[str, Any]:
    schema: Mapping[str, Any] = yaml.safe_load((CHART / "values.schema.json").read_text())
    return schema


def _resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: Any = schema_of_values()
    for name in reference.removeprefix("#/").split("/"):
        found = found[name]
    return _resolved(found)


def missing_files(text: str) -> list[str]:
    """The files and folders of ours that commands name and that are not there."""
    named = {word for words in commands(text) for word in words if word.startswith(OUR_FOLDERS)}
    return sorted(path for path in named if not (ROOT / path).exists())


def objects(text: str) -> Iterator[dict[str, Any]]:
    """The whole objects in the YAML of a page."""
    for block in blocks(text, "yaml"):
        for document in yaml.safe_load_all(block):
            if isinstance(document, dict) and "kind" in document:
                yield document


def names(paths: Sequence[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.holds(
    "README.md", "The commands of all pages set values that the chart has, and name files that exist"
)
@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_commands_set_values_that_the_chart_has(page: Path) -> None:
    assert wrong_values(page.read_text(encoding="utf-8")) == []


@pytest.mark.holds(
    "README.md", "The commands of all pages set values that the chart has, and name files that exist"
)
@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_files_that_commands_name_are_there(page: Path) -> None:
    assert missing_files(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_objects_of_our_kinds_are_valid(page: Path) -> None:
    for document in objects(page.read_text(encoding="utf-8")):
        if document["kind"] in KINDS:
            KINDS[document["kind"]].model_validate(document)


@pytest.mark.parametrize("path", EXAMPLES, ids=names(EXAMPLES))
def test_objects_of_the_examples_are_valid(path: Path) -> None:
    documents = [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one["kind"] in KINDS]
    assert documents
    for document in documents:
        KINDS[document["kind"]].model_validate(document)


@pytest.mark.holds(
    "start/kind.md", "The file that it applies is valid, and needs nothing that it does not make"
)
@pytest.mark.holds(
    "start/eks.md", "The file that it applies is valid, and needs nothing that it does not make"
)
@pytest.mark.holds(
    "start/gke.md", "The file that it applies is valid, and needs nothing that it does not make"
)
@pytest.mark.holds(
    "start/aks.md", "The file that it applies is valid, and needs nothing that it does not make"
)
@pytest.mark.parametrize("name", ["start-cpu.yaml", "start-gpu.yaml"])
def test_a_start_names_nothing_that_it_does_not_make(name: str) -> None:
    """Nothing but the cluster is needed: no claim, no Secret, no model of another file."""
    text = (ROOT / "examples" / name).read_text(encoding="utf-8")
    documents = list(yaml.safe_load_all(text))
    made = {(one["kind"], one["metadata"]["name"]) for one in documents}
    (index,) = (one["spec"] for one in documents if one["kind"] == "VectorIndex")
    (fleet,) = (one["spec"] for one in documents if one["kind"] == "AgentFleet")
    assert made >= {
        ("ConfigMap", index["source"]["path"].removeprefix("configmap://")),
        ("ModelReplicaSet", index["embedding"]["modelRef"]["name"]),
        *(("ModelReplicaSet", model["modelRef"]["name"]) for model in fleet["models"]),
        *(("VectorIndex", used["indexRef"]["name"]) for used in fleet["indexes"]),
    }
    assert "pvc://" not in text
    assert "SecretRef" not in text


def test_every_page_of_the_start_is_checked_and_linked() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {page.name for page in START} == {"aks.md", "eks.md", "gke.md", "kind.md"}
    assert [page.name for page in START if f"](docs/start/{page.name})" not in readme] == []


@pytest.mark.holds("start/kind.md", "It says at its top what was never tried")
@pytest.mark.holds("start/eks.md", "It says at its top what was never tried")
@pytest.mark.holds("start/gke.md", "It says at its top what was never tried")
@pytest.mark.holds("start/aks.md", "It says at its top what was never tried")
@pytest.mark.parametrize("page", START, ids=names(START))
def test_a_page_says_first_what_was_never_tried(page: Path) -> None:
    before_the_first_heading = page.read_text(encoding="utf-8").partition("\n## ")[0]
    assert "> **Never tried.**" in before_the_first_heading


@pytest.mark.holds(
    "start/kind.md", "Its commands of helm install the images that it builds, under the tags of the chart"
)
@pytest.mark.holds(
    "start/eks.md", "Its commands of helm install the images that it builds, under the tags of the chart"
)
@pytest.mark.holds(
    "start/gke.md", "Its commands of helm install the images that it builds, under the tags of the chart"
)
@pytest.mark.holds(
    "start/aks.md", "Its commands of helm install the images that it builds, under the tags of the chart"
)
@pytest.mark.parametrize("page", START, ids=names(START))
def test_a_page_installs_the_chart_with_the_images_that_it_builds(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    (install,) = of_our_chart(text)
    images = yaml.safe_load((CHART / "values.yaml").read_text())["images"]
    built = dict(TAGGED.findall(text))
    repositories = dict(value.split("=") for value in options(install, "--set"))
    wanted = {f"images.{image}.repository" for image in OURS}
    assert repositories.keys() == wanted
    assert {repositories[f"images.{image}.repository"].rpartition("/")[2] for image in OURS} == built.keys()
    for image in OURS:
        assert built[repositories[f"images.{image}.repository"].rpartition("/")[2]] == images[image]["tag"]


@pytest.mark.holds("start/aks.md", "The values file of the page names a value that the chart has")
@pytest.mark.parametrize("page", START, ids=names(START))
def test_values_files_of_a_page_have_values_that_the_chart_has(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    files = [yaml.safe_load(block) for block in blocks(text, "yaml")]
    written = [one for one in files if one.keys() <= schema_of_values()["properties"].keys()]
    (install,) = of_our_chart(text)
    assert len(written) == len(list(options(install, "--values")))
    for document in written:
        assert [path for path in leaves(document) if unknown(path, schema_of_values())] == []


@pytest.mark.holds("start/kind.md", "The cluster that it creates has a Kubernetes that is supported")
@pytest.mark.holds("start/eks.md", "The cluster that it creates has a Kubernetes that is supported")
@pytest.mark.holds("start/gke.md", "The cluster that it creates has a Kubernetes that is supported")
@pytest.mark.holds("start/aks.md", "The cluster that it creates has a Kubernetes that is supported")
@pytest.mark.parametrize("page", START, ids=names(START))
def test_a_page_creates_a_cluster_of_a_version_that_is_supported(page: Path) -> None:
    install = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    oldest, newest = re.findall(r"Kubernetes 1\.(\d+) to 1\.(\d+)", install)[0]
    versions = CREATED.findall(page.read_text(encoding="utf-8"))
    assert versions
    assert all(int(oldest) <= int(version.partition(".")[2]) <= int(newest) for version in versions)


def test_the_pages_ask_in_the_same_words() -> None:
    asked = {dict(SECTION.findall(page.read_text(encoding="utf-8")))["Ask the agent"] for page in START}
    assert len(asked) == 1


def test_faults_of_a_page_are_seen() -> None:
    text = (
        "```sh\nhelm install flotilla charts/flotilla \\\n  --set images.oprator.repository=a \\\n"
        "  --set images.operator.repository=a\nkubectl apply -f examples/gone.yaml # examples/no.yaml\n```"
    )
    assert wrong_values(text) == ["images.oprator.repository"]
    assert missing_files(text) == ["examples/gone.yaml"]
    assert unknown(("placement", "toleration"), schema_of_values())
    assert not unknown(("placement", "tolerations"), schema_of_values())
