"""Makes the secrets that tests use. Each has a mark that the search knows, and is good for a header."""

import base64
from typing import Final

MARK: Final = "Zq7PlantedSecretKx9"  # stands nowhere else, and URLs and JSON leave its letters as they are


def planted(name: str) -> str:
    """The secret of this name: the same for everybody who asks, so that two processes agree."""
    return f"{name}-{MARK}"


def in_secret(name: str) -> str:
    """The same as an entry of a Secret's `data`."""
    return base64.b64encode(planted(name).encode()).decode()
