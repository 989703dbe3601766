"""Children of an object that an API server has, by label."""

from collections.abc import Iterable

from flotilla_operator.objects.resources import Resource
from local_cluster.api_client import ApiClient


def names(client: ApiClient, namespace: str, resources: Iterable[Resource], selector: str = "") -> list[str]:
    """Such as `pods/x`, in the order of the resources."""
    return [
        f"{resource.plural}/{item['metadata']['name']}"
        for resource in resources
        for item in client.get(f"{resource.path(namespace)}?labelSelector={selector}")["items"]
    ]
