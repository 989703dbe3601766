"""Observations of one set and of its cluster, and the set as it is in force: the values that stages judge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flotilla_operator.autoscaling.from_zero import ZeroDecision
from flotilla_operator.controllers.missing import Missing
from flotilla_operator.controllers.model_replica_set.observe.engine_key import EngineKey
from flotilla_operator.controllers.model_replica_set.observe.recorded import Record
from flotilla_operator.controllers.model_replica_set.remembered.remembered import ToldBefore
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.placement.devices import DeviceClass
from flotilla_operator.replicas.facts import RouterLoad, SetFacts
from flotilla_operator.replicas.intent import IntendedSet
from flotilla_operator.replicas.leaving.draining import RouterSeen
from flotilla_operator.replicas.provisioning import Placeholder
from flotilla_operator.replicas.rounds import Asks, Round
from flotilla_operator.replicas.sizing import Sizing
from flotilla_operator.replicas.surroundings import Surroundings
from flotilla_operator.replicas.trouble import Trouble
from flotilla_operator.telemetry.measurements import Target
from flotilla_operator.workloads.devices import device_ask
from flotilla_operator.workloads.group_pods import Pod
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.served import Served
from flotilla_runtime import contract


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """Settings of the operator's own configuration that objects are rendered with."""

    images: Images
    placeholder_priority_class: str = "flotilla-placeholder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything that a decision depends on.

    `asks` is what all sets ask for; `last_round` says where their groups went last. `scaled` is the last
    decision of autoscaling. `existing` holds the objects found under the names that ours need, by kind and
    name. `model_facts` holds what pods report of the model, by revision. `served` says what replicas of each
    recorded revision serve. `device_classes` are those that the
    set's specs name. `hold_devices` names the group of the current move while its devices are not given
    back.
    """

    manifest: Manifest
    facts: SetFacts
    around: Surroundings
    existing: Mapping[tuple[str, str], Manifest]
    rendering: Rendering
    asks: Asks = field(default_factory=Asks)
    last_round: Round | None = None
    before: ToldBefore = field(default_factory=ToldBefore)
    pods: Sequence[Pod] = ()
    missing: tuple[Missing, ...] = ()
    load: RouterLoad = field(default_factory=RouterLoad)
    scaled: ZeroDecision | None = None
    targets: tuple[Target, ...] = ()
    engine_key: EngineKey = field(default_factory=EngineKey)
    placeholders: Sequence[Placeholder] = ()
    model_facts: Mapping[str, contract.ModelFacts] = field(default_factory=dict)
    routers: tuple[RouterSeen, ...] = ()
    router_trouble: Trouble | None = None
    device_classes: Mapping[str, DeviceClass] = field(default_factory=dict)
    claim_templates: Sequence[Manifest] = ()
    hold_devices: frozenset[str] = frozenset()
    records: Mapping[str, Record] = field(default_factory=dict)
    served: Mapping[str, Served] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Observations, with the set as it is in force.

    `scaling` is the decision of autoscaling, and `missing` includes what a verdict on the model adds.
    """

    observed: Observed
    me: IntendedSet
    missing: tuple[Missing, ...] = ()
    scaling: ZeroDecision | None = None
    sizing: Sizing = field(default_factory=Sizing)

    @property
    def before(self) -> ToldBefore:
        return self.observed.before

    @property
    def manifest(self) -> Manifest:
        return self.observed.manifest

    @property
    def pods(self) -> Sequence[Pod]:
        return self.observed.pods

    @property
    def around(self) -> Surroundings:
        return self.observed.around

    @property
    def rendering(self) -> Rendering:
        return self.observed.rendering

    @property
    def existing(self) -> Mapping[tuple[str, str], Manifest]:
        return self.observed.existing

    @property
    def load(self) -> RouterLoad:
        return self.observed.load

    @property
    def device_class(self) -> DeviceClass | None:
        """The class to make a claim template from; None where it contradicts the spec."""
        ask = device_ask(self.me.spec)
        found = None if ask is None else self.observed.device_classes.get(ask.class_name)
        return None if ask is None or found is None or found.all_wanted(ask) is None else found

    @property
    def served_beside(self) -> tuple[Served, ...]:
        """Names that replicas of revisions other than the running one serve, where those are recorded."""
        others = (
            self.observed.served[revision]
            for revision in sorted(self.observed.served)
            if revision != self.me.revision
        )
        return tuple(dict.fromkeys(others))
