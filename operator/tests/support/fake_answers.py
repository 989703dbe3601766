"""How the fake API server answers requests.

It serves list (with selectors, in pages), watch (with bookmarks, resumable), get, create, server-side apply,
JSON and merge patch, replace, delete with preconditions, grace periods and finalizers, the status
subresource, and evictions. It has no defaulting but that of a pod's life, no validation and no admission:
what depends on those is tested against a real API server.

Faults are asked for one by one. `normalise` changes what is applied before it is stored, as defaulting and
admission do.
"""

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from typing import Any

from flotilla_operator.cluster import client
from flotilla_operator.objects.resources import POD_DISRUPTION_BUDGETS, PODS, Resource
from flotilla_operator.objects.times import timestamp
from tests.support.fake_changes import (
    Manifest,
    PatchError,
    applied,
    field_selector,
    in_the_way,
    json_patched,
    label_selector,
    merge,
    only,
    same_fields,
    with_untouched,
)
from tests.support.fake_objects import (
    BY_PATH,
    WITH_GENERATION,
    WITH_STATUS,
    Objects,
    as_item,
    deleted,
    event_text,
    status_document,
)
from tests.support.fake_pods import forbidden_change, grace_seconds, with_defaults
from tests.support.fake_requests import (
    Fault,
    Faults,
    RefusedError,
    Reply,
    Request,
    Target,
    located,
    not_found,
)

BOOKMARK_SECONDS = 60.0
STALLED_LOOK_SECONDS = 0.5
FOREGROUND = "foregroundDeletion"
FORBIDDEN = "FieldValueForbidden"


class Answers(Objects, Faults):
    """The server's state, and what it answers to requests."""

    def __init__(self, **options: Any) -> None:
        Objects.__init__(self, **options)
        Faults.__init__(self)
        self.judge: Callable[[Resource, Manifest], None] = lambda _resource, _new: None  # admission
        self.normalise: Callable[[Manifest], None] = lambda _manifest: None
        self.stalled: set[Resource] = set()  # their watches are open and say nothing
        self._applied: dict[tuple[str, str, str], Manifest] = {}

    def answer(self, request: Request) -> Reply:
        """The answer to a request that is not a watch."""
        try:
            target = located(request.path)
            if target is None:
                raise RefusedError(404, "NotFound", "the server could not find the requested resource")
            return self._answer(request, target)
        except RefusedError as refused:
            return refused.reply

    def lose(
        self, matches: Callable[[Request], bool], *, times: int = 1, late_seconds: float | None = 0.0
    ) -> None:
        """Carry requests out, at once, late or (None) never, and answer none of them."""
        taken: list[Request] = []

        def takes(request: Request) -> bool:
            if found := matches(request):
                taken.append(request)
            return found

        async def answer() -> Reply:
            request = taken.pop()
            if late_seconds is not None:
                asyncio.get_running_loop().call_later(late_seconds, self.answer, request)
            self.hung.set()
            await asyncio.sleep(3600)
            raise AssertionError("a request without an answer has a time limit")

        self.faults.append(Fault(takes, answer, times))

    def _answer(self, request: Request, target: Target) -> Reply:
        if request.method == "GET":
            return Reply(status=200, document=self._read(request, target))
        if request.method == "POST":
            if target.subresource == "eviction":
                return Reply(status=201, document=self._evict(target))
            dry_run = request.query.get("dryRun") == "All"
            return Reply(status=201, document=self._create(request.body, target, dry_run=dry_run))
        held = self.get(target.resource, target.namespace, target.name)
        if request.method == "PATCH" and request.content_type == client.APPLY:
            return self._apply(request, target, held)
        if held is None:
            raise not_found(target)
        if request.method == "DELETE":
            return Reply(status=200, document=self._delete(request.body or {}, target, held))
        return Reply(status=200, document=self._change(request, target, held))

    # Reading.

    def _read(self, request: Request, target: Target) -> Manifest:
        if target.name:
            found = self.get(target.resource, target.namespace, target.name)
            if found is None:
                raise not_found(target)
            return found
        try:
            labels = label_selector(request.query.get("labelSelector", ""))
        except ValueError as error:
            raise RefusedError(400, "BadRequest", str(error)) from None
        fields = field_selector(request.query.get("fieldSelector", ""))
        items = [
            manifest
            for manifest in self.listed(target.resource, target.namespace)
            if labels(manifest["metadata"].get("labels") or {}) and fields(manifest)
        ]
        return self._page(request, target.resource, items)

    def _page(self, request: Request, resource: Resource, items: list[Manifest]) -> Manifest:
        """A page of a list; the token of the next one has the list's version and where it goes on."""
        version, _, start_text = request.query.get("continue", f"{self.version}.0").partition(".")
        start, limit = int(start_text), int(request.query.get("limit", 0)) or len(items)
        metadata: Manifest = {"resourceVersion": version}
        if start + limit < len(items):
            metadata["continue"] = f"{version}.{start + limit}"
            metadata["remainingItemCount"] = len(items) - start - limit
        return {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": metadata,
            "items": [as_item(resource, one) for one in items[start : start + limit]],
        }

    async def watch(self, request: Request) -> AsyncGenerator[str, None]:
        """The events of a watch as JSON texts, with a bookmark each minute, until its time is up."""
        target = located(request.path)
        assert target is not None, request.path
        assert "labelSelector" not in request.query, "the fake API does not watch by label"
        since = int(request.query.get("resourceVersion") or 0)
        if since and since < self.oldest_version:
            yield event_text("ERROR", status_document(410, "Expired", "too old resource version"))
            return
        shelf, loop = self.shelf(target.resource), asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[str, str] | None] = asyncio.Queue()
        for version, namespace, text in shelf.history if since else ():
            if version > since:
                queue.put_nowait((namespace, text))
        for manifest in () if since else self.listed(target.resource):
            queue.put_nowait((manifest["metadata"].get("namespace", ""), event_text("ADDED", manifest)))
        shelf.watches.add(queue)
        end = loop.time() + float(request.query.get("timeoutSeconds", 1800))
        try:
            while (left := end - loop.time()) > 0:
                try:
                    async with asyncio.timeout(min(left, BOOKMARK_SECONDS)):
                        event = await queue.get()
                except TimeoutError:
                    event = ("", self.bookmark_text(target.resource))
                if event is None:
                    return
                while target.resource in self.stalled:  # noqa: ASYNC110
                    await asyncio.sleep(STALLED_LOOK_SECONDS)
                if not target.namespace or event[0] in ("", target.namespace):
                    yield event[1]
        finally:
            shelf.watches.discard(queue)

    # Writing.

    def _create(self, body: Manifest, target: Target, *, dry_run: bool = False) -> Manifest:
        resource, manifest = target.resource, copy.deepcopy(body)
        metadata = manifest["metadata"]
        if "name" not in metadata:
            metadata["name"] = f"{metadata['generateName']}{self.version:05}"
        if resource.namespaced:
            metadata.setdefault("namespace", target.namespace)
        if self.get(resource, target.namespace, metadata["name"]) is not None:
            name = metadata["name"]
            raise RefusedError(409, "AlreadyExists", f'{target.called} "{name}" already exists')
        self._refuse_in_terminating_namespace(target, metadata["name"])
        for name in ("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "generation"):
            metadata.pop(name, None)
        self.judge(resource, manifest)
        if dry_run:
            return self._as_if_stored(resource, manifest)
        return self.put(resource, self._as_stored(resource, manifest))

    def _as_if_stored(self, resource: Resource, manifest: Manifest) -> Manifest:
        """Answer of a dry run: the object as it would be, without a version."""
        stored = self._as_stored(resource, manifest)
        metadata = stored["metadata"]
        metadata["uid"] = f"uid-of-a-dry-run-{metadata['name']}"
        metadata["creationTimestamp"] = timestamp(self.now())
        if resource in WITH_GENERATION:
            metadata["generation"] = 1
        return {"apiVersion": resource.api_version, "kind": resource.kind, **stored}

    def _as_stored(self, resource: Resource, manifest: Manifest) -> Manifest:
        if resource in WITH_STATUS:
            manifest.pop("status", None)
        return with_defaults(manifest) if resource == PODS else manifest

    def _refuse_in_terminating_namespace(self, target: Target, name: str) -> None:
        namespace = self.get(BY_PATH["", "v1", "namespaces"], "", target.namespace)
        if namespace is not None and "deletionTimestamp" in namespace["metadata"]:
            message = (
                f'{target.called} "{name}" is forbidden: unable to create new content '
                f"in namespace {target.namespace} because it is being terminated"
            )
            raise RefusedError(403, "Forbidden", message, ["NamespaceTerminating"])

    def _apply(self, request: Request, target: Target, held: Manifest | None) -> Reply:
        """Server-side apply. Lists are replaced: nobody else writes those that the operator applies."""
        if held is None and target.subresource:
            raise not_found(target)
        body = copy.deepcopy(request.body)
        wanted_uid = body["metadata"].get("uid")
        if wanted_uid and held is None:
            raise RefusedError(409, "Conflict", f'{target.called} "{target.name}": uid mismatch')
        if wanted_uid and held is not None and held["metadata"]["uid"] != wanted_uid:
            message = f'{target.called} "{target.name}" is invalid: metadata.uid: field is immutable'
            raise RefusedError(422, "Invalid", message, ["FieldValueInvalid"])
        if target.resource.namespaced:
            body["metadata"].setdefault("namespace", target.namespace)
        body = only(target.part, body)
        manager = request.query["fieldManager"]
        if held is None:
            self._refuse_in_terminating_namespace(target, target.name)
            created = self._as_stored(target.resource, copy.deepcopy(body))
            self.normalise(created)
            stored = self.put(target.resource, created)
            self._applied[stored["metadata"]["uid"], manager, target.part] = body
            return Reply(status=201, document=stored)
        place = (held["metadata"]["uid"], manager, target.part)
        known, before = place in self._applied, self._applied.get(place, {})
        if request.query.get("force") != "true" and (paths := in_the_way(held, before, body)):
            message = f"Apply failed with {len(paths)} conflicts: {', '.join(paths)}"
            raise RefusedError(409, "Conflict", message, ["FieldManagerConflict"] * len(paths))
        self._applied[place] = body
        changed = applied(held, before, body)
        self.normalise(changed)
        if changed == held and not (known and same_fields(before, body)):
            return Reply(status=200, document=self.put(target.resource, changed))
        return Reply(status=200, document=self.change(target.resource, held, changed))

    def _change(self, request: Request, target: Target, held: Manifest) -> Manifest:
        """Replace the object or patch it."""
        if request.method == "PUT":
            changed = copy.deepcopy(request.body)
        elif request.content_type == client.JSON_PATCH:
            try:
                changed = json_patched(held, request.body)
            except PatchError as error:
                raise RefusedError(422, "Invalid", f"the server rejected our request: {error}") from None
        else:
            changed = copy.deepcopy(held)
            merge(changed, request.body)
        if changed["metadata"].get("resourceVersion") != held["metadata"]["resourceVersion"]:
            message = f'{target.called} "{target.name}": the object has been modified'
            raise RefusedError(409, "Conflict", message)
        changed = with_untouched(target.part, held, changed)
        if target.resource == PODS and (why := forbidden_change(held, changed)):
            raise RefusedError(422, "Invalid", f'Pod "{target.name}" is invalid: {why}', [FORBIDDEN])
        return self.change(target.resource, held, changed)

    def _delete(self, options: Manifest, target: Target, held: Manifest) -> Manifest:
        metadata = held["metadata"]
        for name, wanted in (options.get("preconditions") or {}).items():
            if wanted != metadata[name]:
                message = (
                    f"Precondition failed: {name} in precondition: {wanted}, in object meta: {metadata[name]}"
                )
                raise RefusedError(409, "Conflict", message)
        asked = options.get("gracePeriodSeconds")
        seconds = grace_seconds(held, asked) if target.resource == PODS else 0
        changed = copy.deepcopy(held)
        if options.get("propagationPolicy") == "Foreground":
            finalizers = changed["metadata"].setdefault("finalizers", [])
            finalizers += [FOREGROUND] if FOREGROUND not in finalizers else []
        if not changed["metadata"].get("finalizers") and seconds == 0:
            if target.resource == PODS:
                self._begin_deletion(PODS, changed, 0)
                changed["metadata"]["resourceVersion"] = str(self.version + 1)
            self.remove(target.resource, target.namespace, target.name)
            return changed if target.resource == PODS else deleted(target.resource, held)
        self._begin_deletion(target.resource, changed, seconds)
        return self.put(target.resource, changed) if changed != held else held

    def _begin_deletion(self, resource: Resource, changed: Manifest, seconds: int) -> None:
        """Note since when the object is being deleted; a second deletion can only shorten the grace."""
        metadata = changed["metadata"]
        begun = "deletionTimestamp" in metadata
        if begun and metadata.get("deletionGracePeriodSeconds", 0) <= seconds:
            return
        metadata["deletionTimestamp"] = timestamp(self.now() + timedelta(seconds=seconds))
        metadata["deletionGracePeriodSeconds"] = seconds
        if resource in WITH_GENERATION and not begun:
            metadata["generation"] = metadata.get("generation", 1) + 1

    def _evict(self, target: Target) -> Manifest:
        """Delete a pod unless its disruption budget is used up."""
        pod = self.get(PODS, target.namespace, target.name)
        if pod is None:
            raise not_found(target)
        for budget in self._budgets_of(pod):
            if (budget.get("status") or {}).get("disruptionsAllowed", 0) < 1:
                message = "Cannot evict pod as it would violate the pod's disruption budget."
                raise RefusedError(429, "TooManyRequests", message, ["DisruptionBudget"])
            changed = copy.deepcopy(budget)
            changed["status"]["disruptionsAllowed"] -= 1
            self.put(POD_DISRUPTION_BUDGETS, changed)
        evicted = copy.deepcopy(pod)
        target_of = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
        evicted["status"].setdefault("conditions", []).append(target_of)
        self._delete({}, target, self.put(PODS, evicted))
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}

    def _budgets_of(self, pod: Manifest) -> list[Manifest]:
        """The budgets that count an eviction of this pod; one that is not ready may always be evicted."""
        conditions = (pod.get("status") or {}).get("conditions") or ()
        if not any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
            return []
        labels = pod["metadata"].get("labels") or {}
        return [
            budget
            for budget in self.listed(POD_DISRUPTION_BUDGETS, pod["metadata"]["namespace"])
            if (budget["spec"]["selector"].get("matchLabels") or {}).items() <= labels.items()
        ]
