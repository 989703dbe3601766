"""Users that a Secret or a claim allows, by its annotation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_operator.objects.resources import PERSISTENT_VOLUME_CLAIMS, SECRETS
from flotilla_operator.objects.used_by import ANNOTATION, KINDS, Used, User, why_not_used

SUPPORT = User(kind="AgentFleet", name="support")


def used(annotation: str | None, name: str = "callers") -> Used:
    return Used(resource=SECRETS, namespace="team-a", name=name, annotation=annotation)


@pytest.mark.holds(
    "security.md",
    "A Secret that is mounted is for the objects that `flotilla.dev/used-by` lists; an entry that "
    "names a namespace or cannot be read is an error",
)
@pytest.mark.parametrize(
    "annotation",
    [
        pytest.param("AgentFleet/support", id="alone"),
        pytest.param("ModelReplicaSet/llama, AgentFleet/support", id="beside another"),
        pytest.param(" AgentFleet/support ,, ", id="with spaces and commas"),
    ],
)
@pytest.mark.parametrize("required", [True, False])
def test_who_is_listed_may_use_it(annotation: str, required: bool) -> None:
    assert why_not_used(used(annotation), SUPPORT, required=required) is None


@pytest.mark.holds(
    "security.md",
    "A Secret that is mounted is for the objects that `flotilla.dev/used-by` lists; an entry that "
    "names a namespace or cannot be read is an error",
)
def test_without_the_annotation_all_may_unless_it_is_required() -> None:
    assert why_not_used(used(None), SUPPORT, required=False) is None
    why = why_not_used(used(None), SUPPORT, required=True)
    line = "kubectl annotate -n team-a secret callers flotilla.dev/used-by='AgentFleet/support'"
    assert why == f"it does not say who may use it; if this object may, run: {line}"


@pytest.mark.holds(
    "security.md",
    "A Secret that is mounted is for the objects that `flotilla.dev/used-by` lists; an entry that "
    "names a namespace or cannot be read is an error",
)
@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        pytest.param("", "does not list AgentFleet/support", id="nobody"),
        pytest.param("AgentFleet/other", "does not list AgentFleet/support", id="another object"),
        pytest.param("ModelReplicaSet/support", "does not list AgentFleet/support", id="another kind"),
        pytest.param("AgentFleet/support2", "does not list AgentFleet/support;", id="a longer name"),
        pytest.param("team-b/AgentFleet/support", "which names a namespace", id="another namespace first"),
        pytest.param("AgentFleet/team-b/support", "which names a namespace", id="another namespace between"),
        pytest.param(
            "AgentFleet/support, AgentFleet/team-b/x", "'AgentFleet/team-b/x'", id="one wrong entry of two"
        ),
        pytest.param("agentfleet/support", "is no KIND/NAME", id="a kind in lower case"),
        pytest.param("Deployment/support", "is no KIND/NAME", id="a kind that is not ours"),
        pytest.param("support", "is no KIND/NAME", id="no kind"),
        pytest.param("AgentFleet/*", "is no KIND/NAME", id="a star"),
        pytest.param("AgentFleet/Support", "is no KIND/NAME", id="a name that no object has"),
        pytest.param("AgentFleet/support'; rm -rf x; '", "is no KIND/NAME", id="a command"),
    ],
)
def test_who_is_not_listed_may_not(annotation: str, words: str, required: bool) -> None:
    why = why_not_used(used(annotation), SUPPORT, required=required)
    assert why is not None
    assert words in why
    assert ANNOTATION in why


def test_the_line_to_run_keeps_who_is_listed() -> None:
    claim = Used(
        resource=PERSISTENT_VOLUME_CLAIMS, namespace="a", name="models", annotation="ModelReplicaSet/llama"
    )
    why = why_not_used(claim, SUPPORT, required=True)
    assert why is not None
    assert why.endswith(
        "run: kubectl annotate --overwrite -n a pvc models "
        "flotilla.dev/used-by='ModelReplicaSet/llama, AgentFleet/support'"
    )


def test_a_long_annotation_makes_no_long_message() -> None:
    many = ", ".join(f"AgentFleet/f{number}" for number in range(5_000))
    why = why_not_used(used(many), SUPPORT, required=True)
    assert why is not None
    assert len(why) < 500


@given(annotation=st.text(max_size=60), name=st.sampled_from(["support", "support.b", "s"]))
def test_only_an_entry_that_is_the_object_lets_it_in(annotation: str, name: str) -> None:
    user = User(kind="AgentFleet", name=name)
    entries = {entry.strip() for entry in annotation.split(",")}
    assert (why_not_used(used(annotation), user, required=True) is None) <= (str(user) in entries)
    after = why_not_used(used(str(user)), user, required=True)
    assert after is None


def test_every_kind_can_be_named() -> None:
    assert KINDS == ("AgentFleet", "ModelReplicaSet", "VectorIndex")
