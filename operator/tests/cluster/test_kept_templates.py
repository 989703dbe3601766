"""New images and new parts of templates wait until a workload's pods are made anew for another reason."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_operator.cluster.kept_templates import ANNOTATION_IMAGES, ANNOTATION_PARTS, with_kept_template
from flotilla_operator.cluster.writes import Parts
from flotilla_operator.objects.resources import Manifest

# What releases add to the template, in no order: a field, another probe, a container, a volume, an argument.
PARTS: dict[str, Callable[[dict[str, Any], str], None]] = {
    "memory": lambda pod, size: _haproxy(pod).update(resources={"limits": {"memory": size}}),
    "probe": lambda pod, _: _haproxy(pod).update(livenessProbe={"exec": {"command": ["alive"]}}),
    "helper": lambda pod, _: pod["containers"].append({"name": "helper", "image": "runtime:helper"}),
    "token": lambda pod, _: pod.update(volumes=[{"name": "token"}], serviceAccountName="w"),
    "isolated": lambda pod, _: _haproxy(pod)["args"].insert(0, "-I"),
}


def _haproxy(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["containers"][0]
    return found


def workload(
    release: int,
    *,
    kind: str = "Deployment",
    argument: str = "a",
    parts: Iterable[str] = (),
    memory: str = "64Mi",
) -> Manifest:
    pod: dict[str, Any] = {
        "initContainers": [{"name": "render", "image": f"runtime:{release}"}],
        "containers": [
            {
                "name": "haproxy",
                "image": f"haproxy:{release}",
                "args": [argument],
                "livenessProbe": {"tcpSocket": {"port": 1}},
            }
        ],
    }
    for part in parts:
        PARTS[part](pod, memory)
    return {
        "kind": kind,
        "metadata": {"name": "w", "annotations": {"theirs": "kept"}},
        "spec": {"replicas": 1, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod}},
    }


def applied(
    release: int, live: Manifest | None, *, parts: Iterable[str] = (), refresh: str = "", **fields: Any
) -> Manifest:
    """Manifest that a release with these parts applies."""
    known = sorted(parts)

    def with_only(names: frozenset[str]) -> Manifest:
        return workload(release, parts=[part for part in known if part in names], **fields)

    return with_kept_template(
        workload(release, parts=known, **fields),
        live,
        refresh=refresh,
        parts=Parts(names=frozenset(known), with_only=with_only),
    )


def running(manifest: Manifest, *, ready: int = 1) -> Manifest:
    """Object in the cluster after `manifest` was applied, with what the server adds."""
    live = deepcopy(manifest)
    live["spec"]["template"]["spec"]["dnsPolicy"] = "ClusterFirst"
    live["status"] = {"readyReplicas": ready} if ready else {}
    return live


def images(manifest: Manifest) -> list[str]:
    pod = manifest["spec"]["template"]["spec"]
    return [container["image"] for container in (*pod["initContainers"], *pod["containers"])]


def template(manifest: Manifest) -> Any:
    return manifest["spec"]["template"]


OLD, NEW = ["runtime:1", "haproxy:1"], ["runtime:2", "haproxy:2"]
FIRST = running(applied(1, None))
SOME, ALL = ("memory", "probe"), tuple(PARTS)


@pytest.mark.holds(
    "install.md", "After an upgrade routers, gateways and workers keep the settings that their pods have"
)
@pytest.mark.holds(
    "decisions/0008-upgrades.md", "A workload keeps the images it was made with, noted in an annotation"
)
@pytest.mark.holds(
    "decisions/0008-upgrades.md",
    "A part that a release adds to a template is taken when a new image is, and until then the "
    "template stays",
)
@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
@pytest.mark.parametrize("parts", [pytest.param((), id="new images"), pytest.param(ALL, id="and new parts")])
def test_a_workload_that_serves_keeps_its_template_and_nothing_of_it_changes(
    kind: str, parts: tuple[str, ...]
) -> None:
    first = with_kept_template(workload(1, kind=kind), None, refresh="")
    assert applied(2, running(first), parts=parts, kind=kind) == first


NEWS = [
    pytest.param(None, {}, id="it is not there yet"),
    pytest.param(FIRST, {"argument": "b"}, id="the template changed"),
    pytest.param(running(applied(1, None), ready=0), {}, id="no pod is ready"),
    pytest.param(FIRST, {"refresh": "today"}, id="a user asked for it"),
]


@pytest.mark.holds("install.md", "`flotilla.dev/refresh` gives objects pods with the new images")
@pytest.mark.holds(
    "decisions/0008-upgrades.md",
    "New images are taken when the template changes, when no pod is ready, or when the user asks",
)
@pytest.mark.holds("decisions/0008-upgrades.md", "`flotilla.dev/refresh` rolls a set's replicas and routers")
@pytest.mark.parametrize(("live", "changes"), NEWS)
def test_new_images_are_taken(live: Manifest | None, changes: dict[str, str]) -> None:
    assert images(applied(2, live, **changes)) == NEW


@pytest.mark.holds(
    "decisions/0008-upgrades.md",
    "A part that a release adds to a template is taken when a new image is, and until then the "
    "template stays",
)
@pytest.mark.parametrize("part", ALL)
@pytest.mark.parametrize(("live", "changes"), NEWS)
def test_a_new_part_is_taken_when_a_new_image_is(
    live: Manifest | None, changes: dict[str, str], part: str
) -> None:
    taken = applied(2, live, parts=[part], **changes)
    argument = {name: value for name, value in changes.items() if name != "refresh"}
    assert template(taken) == template(workload(2, parts=[part], **argument))
    assert applied(3, running(taken), parts=[part], **changes) == taken


@pytest.mark.holds(
    "decisions/0008-upgrades.md",
    "A part that a release adds to a template is taken when a new image is, and until then the "
    "template stays",
)
@given(releases=st.lists(st.sets(st.sampled_from(ALL)), min_size=1, max_size=5))
def test_no_row_of_releases_changes_what_serves(releases: list[set[str]]) -> None:
    """Each release adds parts to those before, and a workload may be made at any of them."""
    known: set[str] = set()
    made: list[Manifest] = []
    for number, added in enumerate(releases):
        known |= added
        made.append(applied(number, None, parts=known))
        assert [applied(number, running(one), parts=known) for one in made] == made
        refreshed = applied(number, running(made[0]), parts=known, refresh="now")
        assert template(refreshed) == template(workload(number, parts=sorted(known)))


@pytest.mark.holds(
    "decisions/0008-upgrades.md",
    "What the user changes is another reason, also where it concerns only a part that the workload has",
)
def test_a_workload_without_a_new_part_takes_what_a_user_changes_of_an_older_one() -> None:
    live = running(applied(1, None, parts=["memory"]))
    changed = applied(2, live, parts=["memory", "probe"], memory="128Mi")
    assert template(changed) == template(workload(2, parts=["memory", "probe"], memory="128Mi"))


def test_what_only_a_new_part_reads_is_not_another_reason() -> None:
    live = running(applied(1, None, parts=["probe"]))
    assert applied(2, live, parts=["memory", "probe"], memory="128Mi") == applied(1, None, parts=["probe"])


def test_a_part_whose_name_a_later_release_does_not_know_any_more_stays_noted() -> None:
    """It then renders the part always."""
    made = applied(1, None, parts=["memory"])
    later = workload(2, parts=["memory"])
    nothing_asked = Parts(names=frozenset(), with_only=lambda _: later)
    assert with_kept_template(later, running(made), refresh="", parts=nothing_asked) == made


@pytest.mark.parametrize(
    ("made_with", "known", "renders"),
    [
        pytest.param((), (), 0, id="no part concerns it"),
        pytest.param(ALL, ALL, 0, id="it has all parts"),
        pytest.param(("memory",), SOME, 1, id="it serves without one"),
    ],
)
def test_a_workload_is_rendered_again_only_where_it_serves_without_a_part(
    made_with: tuple[str, ...], known: tuple[str, ...], renders: int
) -> None:
    asked: list[frozenset[str]] = []

    def with_only(names: frozenset[str]) -> Manifest:
        asked.append(names)
        return workload(2, parts=[part for part in known if part in names])

    live = running(applied(1, None, parts=made_with))
    parts = Parts(names=frozenset({*known, "of others"}), with_only=with_only)
    kept = with_kept_template(workload(2, parts=known), live, refresh="", parts=parts)
    assert images(kept)[:2] == OLD
    assert len(asked) == renders


def test_only_a_workload_that_parts_concern_notes_them() -> None:
    of_others = Parts(names=frozenset({"of others"}), with_only=lambda _: workload(1))
    plain = with_kept_template(workload(1), None, refresh="", parts=of_others)
    assert plain == applied(1, None)
    assert ANNOTATION_PARTS not in plain["metadata"]["annotations"]
    assert applied(1, None, parts=SOME)["metadata"]["annotations"][ANNOTATION_PARTS] == '["memory", "probe"]'


@pytest.mark.holds("decisions/0008-upgrades.md", "An image that somebody set by hand is not kept")
def test_an_image_that_somebody_else_set_is_not_kept() -> None:
    live = deepcopy(FIRST)
    live["spec"]["template"]["spec"]["containers"][0]["image"] = "theirs:9"
    assert images(applied(2, live)) == OLD


@pytest.mark.holds("decisions/0008-upgrades.md", "A part that somebody set or removed by hand is not kept")
def test_a_part_that_somebody_else_set_or_removed_is_not_kept() -> None:
    live = running(applied(1, None, parts=["memory"]))
    live["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"memory": "9Gi"}}
    assert applied(2, live, parts=SOME) == applied(1, None, parts=["memory"])


@pytest.mark.parametrize("note", ["{not json", "[1]", '{"haproxy": 1}'])
def test_a_note_of_images_that_cannot_be_read_is_as_none(note: str) -> None:
    live = deepcopy(FIRST)
    live["metadata"]["annotations"][ANNOTATION_IMAGES] = note
    assert images(applied(2, live)) == NEW


@pytest.mark.parametrize("note", ["[not json", '{"memory": 1}', '"memory"', "[1, null]", "[]"])
def test_a_note_of_parts_that_cannot_be_read_is_as_none_and_then_all_is_taken(note: str) -> None:
    live = running(applied(1, None, parts=["memory"]))
    live["metadata"]["annotations"][ANNOTATION_PARTS] = note
    assert template(applied(2, live, parts=SOME)) == template(workload(2, parts=SOME))


def test_a_number_of_replicas_is_no_reason() -> None:
    scaled = workload(2)
    scaled["spec"]["replicas"] = 5
    kept = with_kept_template(scaled, FIRST, refresh="")
    assert (images(kept), kept["spec"]["replicas"]) == (OLD, 5)


def test_other_kinds_and_annotations_are_left_as_they_are() -> None:
    job = {"kind": "Job", "metadata": {"name": "j"}, "spec": {}}
    assert with_kept_template(job, None, refresh="") is job
    kept = with_kept_template(workload(1), None, refresh="")
    assert kept["metadata"]["annotations"]["theirs"] == "kept"
