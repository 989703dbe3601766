"""The mode `Kubernetes`: the API server says who a token is (TokenReview) and what that user may do with the
fleet (SubjectAccessReview). The gateway asks with its own token, which may do nothing else.

A caller's token must be for this fleet: its audience is `flotilla.dev/NAMESPACE/NAME`, so it is of no use
anywhere else, at the API server neither. Tokens of the API server's own audience are taken only where the
chart says so.

An answer is kept for a minute at most, and no longer than the token is good. A token that was good is asked
about again before that, while its answer still counts. It shares no place with tokens that were never good,
of which few are asked about at the same time: callers of a flood of them are told to come again. A token that
says itself that it has ended, or that it is for somebody else, is refused without asking.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import httpx2

from flotilla_runtime.contract import DOMAIN, SecretError, gateway_audience, url_host
from flotilla_runtime.direct import DIRECT
from flotilla_runtime.gateway.auth import KUBERNETES, Identity, Verb, bearer_token_of, unauthorized
from flotilla_runtime.gateway.known_tokens import Answer, KnownTokens, digest_of
from flotilla_runtime.gateway.problems import ProblemError, unavailable
from flotilla_runtime.gateway.tokens import Claims, claims_of
from flotilla_runtime.secret_files import secret_in

KEPT_SECONDS: Final = 60.0
RENEWED_AFTER_SECONDS: Final = 40.0
REFUSAL_KEPT_SECONDS: Final = 5.0
REVIEW_TIMEOUT_SECONDS: Final = 5.0
RETRY_AFTER_SECONDS: Final = 2
PLACES_OF_UNKNOWN: Final = 16
PLACES_OF_GOOD: Final = 32
HELD_AFTER_REFUSAL_SECONDS: Final = 0.2  # so 80 tokens a second are refused by the API server, at most
CLOCKS_APART_SECONDS: Final = 300  # at most, between this clock and that of the API server
LONGEST_TOKEN: Final = 16 * 1024
CONNECTIONS: Final = 256
TOKEN_REVIEWS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path
ACCESS_REVIEWS: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetName:
    """The fleet that a review is about."""

    namespace: str
    name: str

    @property
    def audience(self) -> str:
        """The audience of tokens for this fleet."""
        return gateway_audience(self.namespace, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """A clock that does not jump, and the one by which tokens end."""

    monotonic_seconds: Callable[[], float]
    wall_seconds: Callable[[], float]


class Reviewer:
    """Asks the API server with the gateway's own token, which the kubelet replaces now and then."""

    def __init__(self, client: httpx2.AsyncClient, token_path: Path) -> None:
        self._client = client
        self._token_path = token_path

    async def status_of(self, path: str, review: Mapping[str, Any]) -> Mapping[str, Any]:
        """The status of a review; raises a problem where there is none."""
        try:
            own = secret_in(self._token_path)
        except (OSError, SecretError) as problem:
            raise _unchecked(f"the gateway cannot read its own token ({type(problem).__name__})") from None
        try:
            response = await self._client.post(
                path, json=dict(review), headers={"Authorization": f"Bearer {own}"}
            )
        except (httpx2.HTTPError, httpx2.InvalidURL) as problem:
            raise _unchecked(f"the Kubernetes API does not answer ({type(problem).__name__})") from None
        if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise _unchecked(
                f"the Kubernetes API answered the gateway {response.status_code}; its service account needs "
                "its ClusterRoleBinding, which the operator makes"
            )
        if not response.is_success:
            raise _unchecked(f"the Kubernetes API answered {response.status_code} to {path}")
        return _status_in(response, path)


class KubernetesReviews:
    """The authenticator of the mode `Kubernetes`."""

    def __init__(
        self, reviewer: Reviewer, fleet: FleetName, clocks: Clocks, *, accepts_cluster_tokens: bool = False
    ) -> None:
        self._reviewer = reviewer
        self._fleet = fleet
        self._clocks = clocks
        self._accepts_cluster_tokens = accepts_cluster_tokens
        self._known = KnownTokens()
        self._under_way: dict[bytes, asyncio.Task[Answer]] = {}
        self._places_of_good = asyncio.Semaphore(PLACES_OF_GOOD)
        self._unknown_at_once = 0

    async def identify(self, authorization: str | None, verb: Verb) -> Identity:
        """The user of the token, if it may do this with the fleet's tasks."""
        answer = await self._answer(authorization, lambda found: _allowed(found, verb))
        if not _allowed(answer, verb):
            raise ProblemError(
                HTTPStatus.FORBIDDEN,
                "forbidden",
                f"{answer.user} may not {verb} tasks of the AgentFleet {self._fleet.name} in namespace "
                f"{self._fleet.namespace}; bind it to a Role with the verb {verb} on the resource "
                f"agentfleets/tasks of the API group {DOMAIN}",
            )
        may = verb in answer.rights
        return Identity(
            name=f"{KUBERNETES}:{answer.user}",
            sees_all=may and Verb.LIST in answer.rights,
            sees_own=may,
            approves=verb is Verb.GET and Verb.APPROVE in answer.rights,
        )

    async def may_act(self, authorization: str | None) -> bool:
        """Whether the user of the token may act as the fleet's tenants."""
        return Verb.ACT in (await self._answer(authorization, lambda found: Verb.ACT in found.rights)).rights

    async def may_approve(self, authorization: str | None) -> bool:
        """Whether the user of the token may decide on what waits for approval."""
        asked = self._answer(authorization, lambda found: Verb.APPROVE in found.rights)
        return Verb.APPROVE in (await asked).rights

    async def _answer(self, authorization: str | None, suffices: Callable[[Answer], bool]) -> Answer:
        """Return the answer about the token; asked for anew where that is too old, or does not suffice."""
        token = bearer_token_of(authorization)
        if not (token.isascii() and token.isprintable() and len(token) <= LONGEST_TOKEN):
            raise unauthorized(f"this is no Kubernetes token; {self._advice}")
        digest, now = digest_of(token), self._clocks.monotonic_seconds()
        if (good := self._known.good(digest)) is not None:
            if now < good.until and (suffices(good) or now < good.at + REFUSAL_KEPT_SECONDS):
                if now >= good.at + RENEWED_AFTER_SECONDS:
                    self._begun(digest, token, was_good=True)
                return good
            return _given(await asyncio.shield(self._begun(digest, token, was_good=True)))
        if (other := self._known.other(digest)) is not None and now < other.until:
            return _given(other)
        if (why := self._refused_by_itself(token)) is not None:
            raise unauthorized(why)
        return _given(await asyncio.shield(self._begun(digest, token, was_good=False)))

    def _begun(self, digest: bytes, token: str, *, was_good: bool) -> "asyncio.Task[Answer]":
        """The review of this token that is under way; requests with the same token share one."""
        if (task := self._under_way.get(digest)) is None:
            if not was_good:
                self._take_place()
            review = self._reviewed_as_good if was_good else self._reviewed_as_unknown
            task = self._under_way[digest] = asyncio.create_task(review(digest, token))
            task.add_done_callback(lambda ended: self._ended(digest, ended))
        return task

    def _ended(self, digest: bytes, task: "asyncio.Task[Answer]") -> None:
        del self._under_way[digest]
        if not task.cancelled():
            task.exception()  # who waits for it gets it too; of a renewal nobody does

    def _take_place(self) -> None:
        if self._unknown_at_once >= PLACES_OF_UNKNOWN:
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "unknown-tokens",
                "the gateway checks as many tokens that it has not seen before as it may; try again in "
                f"{RETRY_AFTER_SECONDS} s",
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            )
        self._unknown_at_once += 1

    def _give_place(self) -> None:
        self._unknown_at_once -= 1

    async def _reviewed_as_unknown(self, digest: bytes, token: str) -> Answer:
        """A review in one of the few places; one that ended in a refusal is held for a moment longer."""
        held_seconds = HELD_AFTER_REFUSAL_SECONDS
        try:
            answer = await self._reviewed(digest, token)
            held_seconds = 0.0 if answer.is_good else held_seconds
        finally:
            asyncio.get_running_loop().call_later(held_seconds, self._give_place)
        return answer

    async def _reviewed_as_good(self, digest: bytes, token: str) -> Answer:
        async with self._places_of_good:
            return await self._reviewed(digest, token)

    async def _reviewed(self, digest: bytes, token: str) -> Answer:
        """Ask about a token, and keep the answer. A problem of the API server is no answer."""
        at = self._clocks.monotonic_seconds()
        user = await self._user(token)
        if user is None:
            why = self._why_refused(claims_of(token))
            answer = Answer(at=at, until=at + REFUSAL_KEPT_SECONDS, refusal=why)
        else:
            rights = await self._rights(user)
            kept = KEPT_SECONDS if rights else REFUSAL_KEPT_SECONDS
            until = at + min(kept, self._seconds_left(token))
            answer = Answer(at=at, until=until, user=str(user["username"]), rights=rights)
        self._known.keep(digest, answer)
        return answer

    async def _user(self, token: str) -> Mapping[str, Any] | None:
        """The user of a token that is for this fleet, or for the API server where that is taken too."""
        audience = self._fleet.audience
        status = await self._token_review({"token": token, "audiences": [audience]})
        if not (status.get("authenticated") and audience in (status.get("audiences") or ())):
            if not self._accepts_cluster_tokens:
                return None
            status = await self._token_review({"token": token})
            if not status.get("authenticated"):
                return None
        user = status.get("user") or {}
        return user if user.get("username") else None

    async def _token_review(self, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        return await self._reviewer.status_of(TOKEN_REVIEWS, review)

    async def _rights(self, user: Mapping[str, Any]) -> frozenset[str]:
        """The verbs that the user has."""
        granted = await asyncio.gather(*(self._may(user, verb) for verb in Verb))
        return frozenset(str(verb) for verb, allowed in zip(Verb, granted, strict=True) if allowed)

    async def _may(self, user: Mapping[str, Any], verb: Verb) -> bool:
        attributes = {
            "namespace": self._fleet.namespace,
            "verb": str(verb),
            "group": DOMAIN,
            "resource": "agentfleets",
            "subresource": "tenants" if verb is Verb.ACT else "tasks",
            "name": self._fleet.name,
        }
        who = {"user": user["username"], "groups": user.get("groups") or []}
        further = {key: user[key] for key in ("uid", "extra") if user.get(key)}
        spec = {**who, **further, "resourceAttributes": attributes}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        return bool((await self._reviewer.status_of(ACCESS_REVIEWS, review)).get("allowed"))

    def _seconds_left(self, token: str) -> float:
        claims = claims_of(token)
        if claims is None or claims.expires_at is None:
            return KEPT_SECONDS
        return max(0.0, claims.expires_at - self._clocks.wall_seconds())

    def _refused_by_itself(self, token: str) -> str | None:
        """Why a token is of no use here by its own words; None where the API server must say so.

        The API server refuses such a token too. Asking it would take a place from a token that may be good.
        """
        claims = claims_of(token)
        if claims is None:
            return None
        now = self._clocks.wall_seconds()
        ended = claims.expires_at is not None and claims.expires_at + CLOCKS_APART_SECONDS <= now
        for_others = self._fleet.audience not in (claims.audiences or ()) and not self._accepts_cluster_tokens
        return self._why_refused(claims) if ended or for_others else None

    def _why_refused(self, claims: Claims | None) -> str:
        if claims is None:
            return f"Kubernetes does not accept this token; {self._advice}"
        if claims.expires_at is not None and claims.expires_at <= self._clocks.wall_seconds():
            return f"this token has expired; {self._advice}"
        if claims.audiences is None:
            return f"this token has no audience; {self._advice}"
        if self._fleet.audience not in claims.audiences:
            return f"this token is for another audience than this fleet; {self._advice}"
        return f"Kubernetes does not accept this token, it may have been revoked; {self._advice}"

    @property
    def _advice(self) -> str:
        audience = self._fleet.audience
        return (
            f"send one with the audience {audience}, such as from "
            f"kubectl create token SERVICE_ACCOUNT --audience={audience}"
        )


def api_server_client(environment: Mapping[str, str], ca_path: str) -> httpx2.AsyncClient:
    """A client of the cluster's API server without credentials."""
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT", "443")
    return httpx2.AsyncClient(
        base_url=f"https://{url_host(host)}:{port}",
        verify=ssl.create_default_context(cafile=ca_path),
        timeout=REVIEW_TIMEOUT_SECONDS,
        limits=httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=PLACES_OF_GOOD),
        mounts=DIRECT,
    )


def _status_in(response: httpx2.Response, path: str) -> Mapping[str, Any]:
    """The status in an answer of the API server; raises a problem for an answer of somebody else."""
    try:
        review = response.json()
    except (ValueError, RecursionError):
        review = None
    status = review.get("status", {}) if isinstance(review, Mapping) else None
    if not isinstance(status, Mapping):
        raise _unchecked(f"the answer of the Kubernetes API to {path} is no review")
    return status


def _allowed(answer: Answer, verb: Verb) -> bool:
    """Whether the answer allows this: what waits for approval may be read by who may decide on it."""
    return verb in answer.rights or (verb is Verb.GET and Verb.APPROVE in answer.rights)


def _given(answer: Answer) -> Answer:
    if answer.refusal is not None:
        raise unauthorized(answer.refusal)
    return answer


def _unchecked(why: str) -> ProblemError:
    again = f"try again in {RETRY_AFTER_SECONDS} s"
    return unavailable(f"your token cannot be checked, because {why}; {again}", RETRY_AFTER_SECONDS)
