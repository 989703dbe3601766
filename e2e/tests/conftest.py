"""The demo as a fixture: brought up once, by the functions that `make demo` calls.

Each of its steps has a deadline of its own, so the tests' time limits are for the tests alone: on a machine
without caches the first test would else pay for the images.
"""

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from demo import environment
from demo.corpus import demo_corpus
from demo.environment import Environment
from demo.kubectl import Kubectl
from local_cluster import cluster
from tests.support.applied import Site
from tests.support.stand_ins import double_image


@pytest.fixture(scope="session")
def demo() -> Iterator[Environment]:
    """The three kinds of examples/agentfleet.yaml, ready."""
    try:
        ready = environment.up()
        references = ready.build_images()
        ready.install_chart(references)
        ready.fill_claims(demo_corpus(), references["runtime"])
        ready.apply(environment.EXAMPLE)
        ready.wait_until_ready()
        yield ready
    finally:
        if not os.environ.get("FLOTILLA_KEEP_CLUSTER"):
            cluster.down()


@pytest.fixture(scope="session")
def everywhere(demo: Environment) -> Kubectl:
    """kubectl without a namespace of its own."""
    return replace(demo.kubectl, namespace=None)


@pytest.fixture(scope="session")
def double(demo: Environment) -> str:
    """The engine double's image."""
    return double_image(demo)


@pytest.fixture
def site(demo: Environment) -> Iterator[Site]:
    """The demo's namespace; what a test makes in it goes with the test."""
    made_here = Site(demo.kubectl)
    yield made_here
    made_here.remove_all()
