"""The controller of disruption budgets: how many pods of each may be evicted now."""

from flotilla_operator.objects.resources import POD_DISRUPTION_BUDGETS, PODS
from tests.scenes.parts.part import Part, is_ready


class Budgets(Part):
    """Counts the pods of each budget, with `minAvailable` as a number, as the operator sets it."""

    def look(self) -> None:
        for budget in self.api.listed(POD_DISRUPTION_BUDGETS):
            wanted = (budget["spec"]["selector"].get("matchLabels") or {}).items()
            pods = [
                pod
                for pod in self.api.listed(PODS, budget["metadata"]["namespace"])
                if wanted <= (pod["metadata"].get("labels") or {}).items()
            ]
            healthy = sum(is_ready(pod) and "deletionTimestamp" not in pod["metadata"] for pod in pods)
            desired = int(budget["spec"]["minAvailable"])
            self.cluster.report(
                POD_DISRUPTION_BUDGETS,
                budget,
                observedGeneration=budget["metadata"]["generation"],
                expectedPods=len(pods),
                currentHealthy=healthy,
                desiredHealthy=desired,
                disruptionsAllowed=max(0, healthy - desired),
            )
