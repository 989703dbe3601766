"""Requests that the tests of a settled operator call unscheduled."""

from typing import Any

from tests.support.site import SCHEDULED_AT_MOST, unscheduled


def asked(verb: str, resource: str, name: str = "") -> dict[str, Any]:
    target = {"resource": resource, "namespace": "default", "name": name}
    return {"verb": verb, "objectRef": target, "requestURI": f"/{resource}/{name}"}


def test_watches_renewals_and_a_few_lists_and_reads_of_secrets_are_scheduled() -> None:
    often = [asked("watch", "pods"), asked("update", "leases", "leader")] * 100
    some = [asked("list", "pods"), asked("list", "nodes"), asked("get", "secrets", "a")] * SCHEDULED_AT_MOST
    assert unscheduled([*often, *some]) == []


def test_a_list_or_a_secret_read_in_every_reconcile_is_not() -> None:
    reconciles = SCHEDULED_AT_MOST + 1
    assert len(unscheduled([asked("list", "pods")] * reconciles)) == reconciles
    assert len(unscheduled([asked("get", "secrets", "a")] * reconciles)) == reconciles


def test_a_write_or_a_read_of_anything_else_never_is() -> None:
    assert unscheduled([asked("patch", "pods", "a")]) == ["patch pods default/a (/pods/a)"]
    assert unscheduled([asked("get", "pods", "a")]) == ["get pods default/a (/pods/a)"]
