"""Where queries may be sent to be embedded, whatever the collection in Milvus says."""

import pytest

from flotilla_runtime.contract import Embedder, EmbedderAddress, MilvusConnection, RetrieverConfig
from flotilla_runtime.retrieval.addresses import address_of

WANTED = EmbedderAddress(model_ref="minilm", url="http://minilm-model-internal.team.svc:8001/v1")
MILVUS = MilvusConnection(uri="http://milvus:19530")


def config(*, namespace: str | None = "team") -> RetrieverConfig:
    embedder = WANTED if namespace else None
    return RetrieverConfig(index="i", namespace=namespace, embedder=embedder, milvus=MILVUS, alias="a")


def embedder(name: str, url: str) -> Embedder:
    return Embedder(model_ref=name, url=url, model="m", identity="x", dimension=3)


@pytest.mark.holds("security.md", "Queries are embedded at no address that only Milvus names")
@pytest.mark.attack("Somebody writes another address of the embedding model into Milvus")
@pytest.mark.parametrize(
    ("name", "url", "address"),
    [
        pytest.param("minilm", "http://evil.example/v1", WANTED.url, id="the model of the spec, elsewhere"),
        pytest.param(
            "minilm", "http://minilm-model.team.svc:8000/v1", WANTED.url, id="at its former address"
        ),
        pytest.param(
            "older",
            "http://older-model.team.svc:8000/v1",
            "http://older-model.team.svc:8000/v1",
            id="the model of the generation before",
        ),
        pytest.param(
            "older",
            "http://older-model-internal.team.svc:8001/v1",
            "http://older-model-internal.team.svc:8001/v1",
            id="which serves HTTPS",
        ),
        pytest.param("older", "http://evil.example/v1", None, id="another model, elsewhere"),
        pytest.param("older", "http://older-model.others.svc:8000/v1", None, id="in another namespace"),
        pytest.param("older", "http://minilm-model.team.svc:8000/v1", None, id="at the address of a third"),
        pytest.param(
            "evil.example/#", "http://evil.example/#-model.team.svc:8000/v1", None, id="a name that is none"
        ),
    ],
)
def test_queries_go_to_routers_of_the_namespace_alone(name: str, url: str, address: str | None) -> None:
    assert address_of(embedder(name, url), config()) == address


def test_a_configuration_of_the_release_before_says_nothing_of_addresses() -> None:
    url = "http://minilm-model.team.svc:8000/v1"
    assert address_of(embedder("minilm", url), config(namespace=None)) == url
