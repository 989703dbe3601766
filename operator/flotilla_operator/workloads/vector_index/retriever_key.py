"""The key that searches send, where the spec names no Secret of the user's.

It is in the secret `NAME-retriever-key`, which is made once. The retriever and the workers of fleets mount it
and read it again when it changes, so nothing is replaced for another key. Deleting the secret is the way to
replace the key.
"""

import base64
from typing import Final

from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads.labels import Child

KEY_ENTRY: Final = "key"


def retriever_key(owner: Owner) -> Child:
    """The secret `NAME-retriever-key`."""
    return Child(owner=owner, component="retriever", suffix="retriever-key")


def retriever_key_secret(owner: Owner, key: str) -> Manifest:
    """The secret with the key. Whoever can read it may search."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": retriever_key(owner).metadata(),
        "type": "Opaque",
        "data": {KEY_ENTRY: base64.b64encode(key.encode()).decode()},
    }
