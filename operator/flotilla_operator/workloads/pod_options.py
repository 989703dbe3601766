"""Puts the user's options of a component into its pod template.

Flotilla's labels, annotations and variables win, because selectors, network policies and its own programs
depend on them; the API server refuses options that name them. Tolerations and terms of affinity are added to
Flotilla's. Resources replace Flotilla's requests as a whole. The scheduler still spreads the pods of a
Deployment over nodes where it can.
"""

from typing import Any, Final

from flotilla_operator.api.parts import ResourceRequirements
from flotilla_operator.api.pods import PodOptions, PodOptionsWithResources
from flotilla_operator.objects.quantities import quantity
from flotilla_operator.objects.resources import Manifest

LEAST_REQUEST: Final = "96Mi"


def with_options(workload: Manifest, options: PodOptions) -> Manifest:
    """A Deployment, StatefulSet or Job whose pods have the user's options."""
    spec = workload["spec"]
    return {**workload, "spec": {**spec, "template": template_with(spec["template"], options)}}


def with_memory_limit(workload: Manifest, limit: str) -> Manifest:
    """The workload with this memory limit for its first container, or what that requests if it is more.

    A limit of the user's stays. Kubernetes requests what is limited, where nothing else is requested.
    """
    spec = workload["spec"]
    template = spec["template"]
    first, *others = template["spec"]["containers"]
    resources = first.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    if "memory" in limits:
        return workload
    asked = requests.get("memory", LEAST_REQUEST)
    resources = {
        "requests": {**requests, "memory": asked},
        "limits": {**limits, "memory": max(limit, asked, key=quantity)},
    }
    pod = {**template["spec"], "containers": [{**first, "resources": resources}, *others]}
    return {**workload, "spec": {**spec, "template": {**template, "spec": pod}}}


def template_with(template: Manifest, options: PodOptions) -> Manifest:
    """The pod template with the user's options; the first container gets the resources and variables."""
    metadata = dict(template["metadata"])
    for kind, wanted in (("labels", options.labels), ("annotations", options.annotations)):
        if wanted:
            metadata[kind] = {**wanted, **metadata.get(kind, {})}
    spec = {**template["spec"], **_scheduling(template["spec"], options)}
    first, *others = spec["containers"]
    spec["containers"] = [_container(first, options), *others]
    return {**template, "metadata": metadata, "spec": spec}


def field_refused(manifest: Manifest, path: str, options: PodOptions) -> str:
    """The field to name if the API server refuses the object: the options, where its pods have any."""
    return path if options.model_fields_set and "template" in manifest.get("spec", {}) else ""


def asks(resources: ResourceRequirements) -> bool:
    """Whether the user says anything about resources."""
    return bool(resources.requests or resources.limits)


def _scheduling(spec: Manifest, options: PodOptions) -> Manifest:
    wanted: Manifest = {}
    if options.node_selector:
        wanted["nodeSelector"] = dict(options.node_selector)
    if options.tolerations:
        wanted["tolerations"] = [toleration.manifest() for toleration in options.tolerations]
    if options.affinity is not None:
        wanted["affinity"] = _affinity(spec.get("affinity", {}), options.affinity.manifest())
    if options.priority_class_name is not None:
        wanted["priorityClassName"] = options.priority_class_name
    if options.runtime_class_name is not None:
        wanted["runtimeClassName"] = options.runtime_class_name
    return wanted


def _affinity(ours: Manifest, theirs: Manifest) -> Manifest:
    """Both, as terms that must all be fulfilled. Flotilla's own are of pods only, which are lists."""
    merged: dict[str, Any] = {kind: _without_empty(rules) for kind, rules in theirs.items()}
    for kind, rules in ours.items():
        beside = merged.get(kind, {})
        merged[kind] = {**beside, **{name: [*terms, *beside.get(name, ())] for name, terms in rules.items()}}
    return {kind: rules for kind, rules in merged.items() if rules}


def _without_empty(rules: Manifest) -> Manifest:
    return {name: terms for name, terms in rules.items() if terms}


def _container(container: Manifest, options: PodOptions) -> Manifest:
    changed = dict(container)
    if isinstance(options, PodOptionsWithResources) and asks(options.resources):
        changed["resources"] = options.resources.manifest()
    ours = {variable["name"] for variable in container.get("env", ())}
    added = [variable.manifest() for variable in options.env if variable.name not in ours]
    if added:
        changed["env"] = [*container.get("env", ()), *added]
    return changed
