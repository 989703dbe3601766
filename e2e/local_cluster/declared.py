"""Things that are fetched or built once and kept in the cache, and the tiers of the tests that declare them.

`python -m tiers` prepares what its tiers declare, and tells each tier's tests in a variable what that is. A
test that asks for more fails, also where it is in the cache: a clean machine would build it amid the tests.
Where the variable is not set, everything may be had.
"""

import os

from local_cluster.errors import BuildFailed

DECLARED = "FLOTILLA_DECLARED"
ENGINE = "engine"
MODELS = "models"
NEWER_HAPROXY = "haproxy-newer"


def check_declared(name: str) -> None:
    """Raise BuildFailed if the tests that run now do not declare it."""
    declared = os.environ.get(DECLARED)
    if declared is not None and name not in declared.split():
        raise BuildFailed(
            part=name,
            problem="a test asks for it, and the test's tier does not declare it",
            fix=f"Name {name} among what the tier `needs` in e2e/tiers/tiers.py, or move the test.",
        )
