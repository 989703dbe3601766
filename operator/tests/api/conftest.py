"""The kinds on a real API server, for the tests of this folder."""

import pytest

from local_cluster.control_plane import ControlPlane
from tests.support.kinds import install_kinds


@pytest.fixture(scope="session")
def kinds_installed(control_plane: ControlPlane) -> ControlPlane:
    """The shared API server with our kinds."""
    install_kinds(control_plane)
    return control_plane
