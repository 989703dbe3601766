"""Intent in force for a set: its spec or its last good one, and the number of replicas."""

from dataclasses import dataclass
from enum import StrEnum

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.autoscaling.from_zero import ZeroDecision
from flotilla_operator.objects.owners import Owner
from flotilla_operator.placement import Group
from flotilla_operator.replicas.facts import FailedPin, Form, SetFacts
from flotilla_operator.replicas.group import ReplicaGroup
from flotilla_operator.replicas.memory import Remembered


class IntentReason(StrEnum):
    """Why something else is in force than what the user's object says."""

    AS_ASKED = "AsAsked"
    SCALED = "Scaled"
    ROLLED_BACK = "RolledBack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """Form and number of replicas that are in force. The user's spec is never changed for it."""

    form: Form
    replicas: int
    why: frozenset[IntentReason] = frozenset({IntentReason.AS_ASKED})

    @property
    def spec(self) -> ModelReplicaSetSpec:
        """The spec whose replicas are wanted; its own `replicas` does not count."""
        return self.form.spec


@dataclass(frozen=True, slots=True, kw_only=True)
class IntendedSet:
    """A set's facts with what is in force."""

    facts: SetFacts
    intent: Intent

    @property
    def owner(self) -> Owner:
        return self.facts.owner

    @property
    def full_name(self) -> str:
        """The set's name for placement, which is unique in the cluster."""
        return f"{self.owner.namespace}/{self.owner.name}"

    @property
    def spec(self) -> ModelReplicaSetSpec:
        return self.intent.form.spec

    @property
    def replicas(self) -> int:
        return self.intent.replicas

    @property
    def stages(self) -> int:
        """How many pods a group has."""
        return self.spec.parallelism.pipeline

    @property
    def several_stages(self) -> bool:
        """Whether groups of several pods are wanted or still exist."""
        return self.stages > 1 or any(group.stages > 1 for group in self.groups)

    @property
    def revision(self) -> str:
        """The revision to run."""
        return self.intent.form.revision

    @property
    def newest_revision(self) -> str:
        """The revision that the user's object asks for; of a failed one, the name under which it failed."""
        if IntentReason.ROLLED_BACK in self.intent.why:
            return self.memory.rollout.failed
        return self.facts.newest.revision

    @property
    def refresh(self) -> str:
        return self.intent.form.refresh

    @property
    def asks(self) -> Group | None:
        return self.intent.form.asks

    @property
    def groups(self) -> tuple[ReplicaGroup, ...]:
        return self.facts.groups

    @property
    def memory(self) -> Remembered:
        return self.facts.memory

    @property
    def priority(self) -> int:
        return self.facts.priority

    @property
    def failed_pins(self) -> tuple[FailedPin, ...]:
        return self.facts.failed_pins

    @property
    def key_made_anew(self) -> str:
        return self.facts.key_made_anew


def intent_of(facts: SetFacts, scaled: ZeroDecision | None) -> Intent:
    """Return the intent in force.

    Without a fresh decision of autoscaling the last one stays. After a failure the last good revision is in
    force until the spec changes, once the API server has given leave.
    """
    spec, why = facts.newest.spec, set()
    replicas = wanted_last(spec, facts.memory) if scaled is None else scaled.wanted
    if spec.autoscaling is not None:
        why.add(IntentReason.SCALED)
    form = facts.newest
    if facts.newest_failed and facts.good is not None and not facts.memory.rollout.asks_leave:
        form = facts.good
        why.add(IntentReason.ROLLED_BACK)
    return Intent(form=form, replicas=replicas, why=frozenset(why or {IntentReason.AS_ASKED}))


def wanted_last(spec: ModelReplicaSetSpec, memory: Remembered) -> int:
    """`spec.replicas`, or with autoscaling the number that was decided last."""
    return spec.replicas if spec.autoscaling is None else memory.wanted


def in_force(facts: SetFacts, scaled: ZeroDecision | None = None) -> IntendedSet:
    """The set with what is in force."""
    return IntendedSet(facts=facts, intent=intent_of(facts, scaled))
