"""The writes for claim templates: one for each revision that replicas have or get."""

from flotilla_operator.cluster.writes import Create, Delete
from flotilla_operator.controllers.model_replica_set.seen import Situation
from flotilla_operator.objects.resources import RESOURCE_CLAIM_TEMPLATES
from flotilla_operator.replicas.demand import Demand
from flotilla_operator.workloads.devices import claim_template, template_name


def new_template(situation: Situation, demand: Demand) -> list[Create]:
    """The claim template of the current revision, where it does not exist yet.

    It is only created with groups that get their pods now. Otherwise a template that is refused at
    every reconcile would count as a new failure each time.
    """
    me, revision = situation.me, demand.revision
    held = {template["metadata"]["name"] for template in situation.observed.claim_templates}
    if situation.device_class is None or template_name(me.owner, revision) in held:
        return []
    wanted = claim_template(me.owner, me.spec, revision, situation.device_class)
    return [] if wanted is None else [Create(manifest=wanted)]


def old_templates(situation: Situation, demand: Demand) -> list[Delete]:
    """The deletion of claim templates whose revision no group has or will get."""
    owner = situation.me.owner
    revisions = {demand.revision, *(group.revision for group in demand.groups)}
    used = {template_name(owner, revision) for revision in revisions}
    return [
        Delete(ref=RESOURCE_CLAIM_TEMPLATES.ref_to(template), uid=template["metadata"]["uid"])
        for template in situation.observed.claim_templates
        if template["metadata"]["name"] not in used
    ]
