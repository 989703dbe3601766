"""The names of a fleet's models, by which calls, figures and budgets know them."""

from collections.abc import Iterable

from flotilla_operator.api.fleet_agent import FleetModel


def model_names(models: Iterable[FleetModel]) -> dict[str, str]:
    """The name of each role's model: that of its ModelReplicaSet, or that at its endpoint.

    An endpoint's model whose name another one has, such as the same model of a second provider, is a model of
    its own, so its role is added.
    """
    models = tuple(models)
    names = {model.role: model.model_ref.name for model in models if model.model_ref is not None}
    taken = set(names.values())
    for model in models:
        if model.endpoint is not None:
            name = model.endpoint.model
            names[model.role] = f"{name} ({model.role})" if name in taken else name
            taken.add(name)
    return {model.role: names[model.role] for model in models}
