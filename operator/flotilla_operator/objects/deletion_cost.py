"""The annotation by which Kubernetes chooses the pods that go first when there are to be fewer."""

from typing import Final

ANNOTATION: Final = "controller.kubernetes.io/pod-deletion-cost"
LENGTH: Final = 11  # of a number that Kubernetes takes
