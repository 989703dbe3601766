"""Tokens of the mode Kubernetes with a double of the API server; test_kubernetes_auth.py has the real one."""

import asyncio
import base64
import json
import logging
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.gateway.auth import Verb
from flotilla_runtime.gateway.known_tokens import (
    MOST_GOOD,
    MOST_OF_ONE_USER,
    MOST_OTHERS,
    Answer,
    KnownTokens,
)
from flotilla_runtime.gateway.problems import ProblemError
from flotilla_runtime.gateway.reviews import (
    PLACES_OF_UNKNOWN,
    TOKEN_REVIEWS,
    Clocks,
    FleetName,
    KubernetesReviews,
    Reviewer,
)
from flotilla_runtime.gateway.tokens import claims_of
from leaks.planted import planted
from router_support.waiting import until

FLEET = FleetName(namespace="default", name="support")
AUDIENCE = "flotilla.dev/default/support"
OF_THE_CLUSTER = "https://kubernetes.default.svc"


async def refusal_of(
    reviews: KubernetesReviews, authorization: str | None, verb: Verb = Verb.GET
) -> ProblemError:
    with pytest.raises(ProblemError) as refusal:
        await reviews.identify(authorization, verb)
    return refusal.value


class ApiServer:
    """Knows the tokens `t-NAME`, which are for the fleet, and `c-NAME`, which are its own; `down` makes it
    fail, and `held` makes it wait.
    """

    rights: ClassVar = {
        "ann": {"create", "get"},
        "root": {"create", "get", "list", "approve"},
        "new": {"get"},
        "front": {"create", "get", "act"},
        "boss": {"approve"},
        "lister": {"list"},
        "stranger": set(),
    }

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.verbs: dict[str, set[str]] = {**self.rights}
        self.down = False
        self.held = asyncio.Event()
        self.held.set()
        self.expired: set[str] = set()
        self.reads_audiences = True

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        assert request.headers["Authorization"] == "Bearer the-gateway"
        spec = json.loads(request.content)["spec"]
        self.asked.append(spec.get("token") or spec["resourceAttributes"]["verb"])
        await self.held.wait()
        if self.down:
            raise httpx2.ConnectError("refused")
        if request.url.path == TOKEN_REVIEWS:
            return httpx2.Response(201, json={"status": self._who(spec)})
        attributes = spec["resourceAttributes"]
        about = "tenants" if attributes["verb"] == "act" else "tasks"
        assert attributes["resource"] == "agentfleets"
        assert (attributes["subresource"], attributes["name"]) == (about, "support")
        assert (spec["groups"], spec["uid"], spec["extra"]) == (["g"], "u", {"k": ["v"]})
        return httpx2.Response(
            201, json={"status": {"allowed": attributes["verb"] in self.verbs[spec["user"]]}}
        )

    def _who(self, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        token = spec["token"]
        kind, _, name = token.partition("-")
        audience = {"t": AUDIENCE, "c": OF_THE_CLUSTER}.get(kind)
        wanted = spec.get("audiences") or [OF_THE_CLUSTER]
        if name.partition(".")[0] not in self.verbs or token in self.expired:
            return {"authenticated": False, "error": "no"}
        if not self.reads_audiences:
            return {"authenticated": True, "user": self._user(name)}
        if audience not in wanted:
            return {"authenticated": False, "error": "audience"}
        return {"authenticated": True, "user": self._user(name), "audiences": [audience]}

    def _user(self, name: str) -> Mapping[str, Any]:
        return {"username": name.partition(".")[0], "uid": "u", "groups": ["g"], "extra": {"k": ["v"]}}


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def own_token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("the-gateway\n")
    return path


class Gateway:
    """The reviews of a gateway, with a clock and an API server that a test holds."""

    def __init__(self, own_token: Path, *, accepts_cluster_tokens: bool = False) -> None:
        self.server, self.clock = ApiServer(), FakeClock()
        client = httpx2.AsyncClient(
            transport=httpx2.MockTransport(self.server), base_url="https://kubernetes"
        )
        self.reviews = KubernetesReviews(
            Reviewer(client, own_token),
            FLEET,
            Clocks(monotonic_seconds=self.clock, wall_seconds=self.clock),
            accepts_cluster_tokens=accepts_cluster_tokens,
        )


@pytest.fixture
def gateway(own_token: Path) -> Gateway:
    return Gateway(own_token)


def signed(**claims: object) -> str:
    """A JSON web token that nobody signed."""
    text = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{text}.x"


@pytest.mark.holds("tasks.md", "Answers of the API server are kept for a minute at most")
async def test_a_token_is_asked_about_and_the_answer_is_kept_for_a_minute(gateway: Gateway) -> None:
    identity = await gateway.reviews.identify("Bearer t-ann", Verb.CREATE)
    assert (identity.name, identity.sees_all) == ("kubernetes:ann", False)
    assert (await gateway.reviews.identify("Bearer t-root", Verb.GET)).sees_all
    asked = len(gateway.server.asked)
    gateway.clock.now = 39
    await gateway.reviews.identify("Bearer t-root", Verb.GET)
    assert len(gateway.server.asked) == asked
    gateway.clock.now = 61
    await gateway.reviews.identify("Bearer t-root", Verb.GET)
    assert len(gateway.server.asked) > asked


@pytest.mark.holds(
    "tasks.md", "An answer holds no longer than the token, and is renewed before its end while it is used"
)
async def test_a_good_answer_is_renewed_before_its_end_and_nobody_waits(gateway: Gateway) -> None:
    await gateway.reviews.identify("Bearer t-ann", Verb.GET)
    gateway.clock.now, asked = 45, len(gateway.server.asked)
    gateway.server.held.clear()
    for _ in range(3):
        await gateway.reviews.identify("Bearer t-ann", Verb.GET)
    await until(lambda: len(gateway.server.asked) == asked + 1)
    gateway.server.held.set()
    await until(lambda: len(gateway.server.asked) == asked + 1 + len(Verb))
    gateway.clock.now, gateway.server.down = 70, True
    await gateway.reviews.identify("Bearer t-ann", Verb.GET)


async def test_while_the_api_server_is_away_a_good_answer_holds_to_its_end(gateway: Gateway) -> None:
    await gateway.reviews.identify("Bearer t-ann", Verb.GET)
    gateway.clock.now, gateway.server.down = 59, True
    for _ in range(3):
        await gateway.reviews.identify("Bearer t-ann", Verb.GET)
        await asyncio.sleep(0)
    gateway.clock.now = 61
    refusal = await refusal_of(gateway.reviews, "Bearer t-ann")
    assert refusal.status is HTTPStatus.SERVICE_UNAVAILABLE


@pytest.mark.holds(
    "tasks.md", "An answer holds no longer than the token, and is renewed before its end while it is used"
)
async def test_an_answer_holds_no_longer_than_the_token(gateway: Gateway) -> None:
    token = f"t-ann.{signed(aud=AUDIENCE, exp=20).split('.')[1]}.x"
    await gateway.reviews.identify(f"Bearer {token}", Verb.GET)
    gateway.server.expired.add(token)
    gateway.clock.now = 19
    await gateway.reviews.identify(f"Bearer {token}", Verb.GET)
    gateway.clock.now = 20
    refusal = await refusal_of(gateway.reviews, f"Bearer {token}")
    assert refusal.status is HTTPStatus.UNAUTHORIZED
    assert "has expired" in refusal.detail


@pytest.mark.holds(
    "tasks.md",
    "A token for another audience, an expired one and one without an audience get a 401 that names "
    "the audience to ask for",
)
@pytest.mark.attack("A gateway that was taken over uses its callers' tokens at the API server")
@pytest.mark.parametrize(
    ("token", "told"),
    [
        pytest.param("c-ann", "does not accept this token", id="one of the API server's audience"),
        pytest.param("random", "does not accept this token", id="none"),
        pytest.param(signed(aud=[OF_THE_CLUSTER]), "for another audience", id="one that says so"),
        pytest.param(signed(aud="flotilla.dev/default/other"), "for another audience", id="of another fleet"),
        pytest.param(signed(exp=9e9), "has no audience", id="one without an audience"),
        pytest.param(signed(aud=AUDIENCE, exp=0), "has expired", id="an expired one"),
        pytest.param(signed(aud=AUDIENCE, exp=9e9), "may have been revoked", id="one that nobody made"),
    ],
)
async def test_a_token_that_is_not_for_the_fleet_is_refused_with_the_audience_to_ask_for(
    gateway: Gateway, token: str, told: str
) -> None:
    refusal = await refusal_of(gateway.reviews, f"Bearer {token}")
    assert refusal.status is HTTPStatus.UNAUTHORIZED
    assert told in refusal.detail
    assert f"--audience={AUDIENCE}" in refusal.detail
    assert token not in refusal.detail


@pytest.mark.attack("A flood of tokens that are none keeps good callers waiting")
@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"aud": OF_THE_CLUSTER, "exp": 9e9}, id="for the API server"),
        pytest.param({"aud": ["flotilla.dev/default/other"]}, id="for another fleet"),
        pytest.param({"exp": 9e9}, id="for nobody"),
        pytest.param({"aud": AUDIENCE, "exp": 600}, id="ended five minutes ago"),
    ],
)
async def test_a_token_that_says_itself_that_it_is_of_no_use_takes_no_place(
    gateway: Gateway, claims: Mapping[str, object]
) -> None:
    gateway.clock.now = 901
    refusal = await refusal_of(gateway.reviews, f"Bearer {signed(**claims)}")
    assert (refusal.status, gateway.server.asked) == (HTTPStatus.UNAUTHORIZED, [])


async def test_the_api_server_says_whether_a_token_has_ended_where_the_clocks_may_be_apart(
    gateway: Gateway,
) -> None:
    gateway.clock.now = 899
    token = f"t-ann.{signed(aud=AUDIENCE, exp=600).split('.')[1]}.x"
    await gateway.reviews.identify(f"Bearer {token}", Verb.GET)
    assert token in gateway.server.asked


async def test_a_token_of_another_audience_is_asked_about_where_the_chart_takes_the_clusters(
    own_token: Path,
) -> None:
    gateway = Gateway(own_token, accepts_cluster_tokens=True)
    token = f"c-ann.{signed(aud=OF_THE_CLUSTER, exp=9e9).split('.')[1]}.x"
    assert (await gateway.reviews.identify(f"Bearer {token}", Verb.GET)).name == "kubernetes:ann"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"status": "ok"}', b"\xff", b"[" * 100_000])
async def test_an_answer_that_is_no_review_is_a_503_and_is_not_quoted(own_token: Path, body: bytes) -> None:
    def proxy(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=body)

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(proxy), base_url="https://kubernetes")
    clocks = Clocks(monotonic_seconds=FakeClock(), wall_seconds=FakeClock())
    refusal = await refusal_of(KubernetesReviews(Reviewer(client, own_token), FLEET, clocks), "Bearer t-ann")
    assert refusal.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert "is no review" in refusal.detail


async def test_an_api_server_that_reads_no_audiences_lets_nobody_in(gateway: Gateway) -> None:
    gateway.server.reads_audiences = False
    assert (await refusal_of(gateway.reviews, "Bearer t-ann")).status is HTTPStatus.UNAUTHORIZED


@pytest.mark.holds(
    "tasks.md",
    "A token of a fleet is of no use at the API server; the chart can let gateways take those of "
    "the API server",
)
async def test_a_token_of_the_cluster_is_taken_where_the_chart_says_so(own_token: Path) -> None:
    gateway = Gateway(own_token, accepts_cluster_tokens=True)
    for token in ("c-ann", "t-ann"):
        assert (await gateway.reviews.identify(f"Bearer {token}", Verb.GET)).name == "kubernetes:ann"
    assert (await refusal_of(gateway.reviews, "Bearer x-ann")).status is HTTPStatus.UNAUTHORIZED


async def test_a_caller_without_the_verb_is_told_which_to_get(gateway: Gateway) -> None:
    refusal = await refusal_of(gateway.reviews, "Bearer t-new", Verb.CREATE)
    assert refusal.status is HTTPStatus.FORBIDDEN
    assert "new may not create tasks of the AgentFleet support in namespace default" in refusal.detail


async def test_a_verb_that_is_granted_is_noticed_after_a_few_seconds(gateway: Gateway) -> None:
    await refusal_of(gateway.reviews, "Bearer t-new", Verb.CREATE)
    gateway.server.verbs["new"] = {"get", "create"}
    await refusal_of(gateway.reviews, "Bearer t-new", Verb.CREATE)
    gateway.clock.now = 6
    assert (await gateway.reviews.identify("Bearer t-new", Verb.CREATE)).name == "kubernetes:new"


@pytest.mark.parametrize("token", ["é", "t-ann\u00a0", "t\tann", "t\x7f", "t" * 17_000])
async def test_a_token_that_no_api_server_gives_is_refused_without_being_asked_about(
    gateway: Gateway, token: str
) -> None:
    refusal = await refusal_of(gateway.reviews, f"Bearer {token}")
    assert (refusal.status, gateway.server.asked) == (HTTPStatus.UNAUTHORIZED, [])


@pytest.mark.holds(
    "tasks.md",
    "Who may approve finds what waits, reads what is asked, and decides; who decided is in the journal",
)
async def test_who_may_only_approve_reads_what_waits_for_it_and_nothing_of_its_own(gateway: Gateway) -> None:
    auth = gateway.reviews
    boss = await auth.identify("Bearer t-boss", Verb.GET)
    assert (boss.approves, boss.sees_own, boss.sees_all) == (True, False, False)
    assert (await auth.identify("Bearer t-boss", Verb.APPROVE)).name == "kubernetes:boss"
    assert await auth.may_approve("Bearer t-boss")
    assert not await auth.may_approve("Bearer t-ann")
    assert (await refusal_of(auth, "Bearer t-boss", Verb.CREATE)).status is HTTPStatus.FORBIDDEN
    for token in ("t-new", "t-ann"):
        refusal = await refusal_of(auth, f"Bearer {token}", Verb.APPROVE)
        assert "may not approve tasks of the AgentFleet support" in refusal.detail
    assert (await refusal_of(auth, "Bearer t-lister", Verb.GET)).status is HTTPStatus.FORBIDDEN


@pytest.mark.holds("tasks.md", "Answers of the API server are kept for a minute at most")
async def test_a_refusal_is_kept_for_a_few_seconds_only(gateway: Gateway) -> None:
    for _ in range(2):
        assert (await refusal_of(gateway.reviews, "Bearer expired")).status is HTTPStatus.UNAUTHORIZED
    assert len(gateway.server.asked) == 1
    gateway.clock.now = 6
    await refusal_of(gateway.reviews, "Bearer expired")
    assert len(gateway.server.asked) == 2


@pytest.mark.holds("tasks.md", "503 with Retry-After while Redis or the API server is away")
@pytest.mark.holds("recovery.md", "Fleets go on while the operator or the API server is away")
async def test_an_api_server_that_is_away_is_a_503_and_not_a_401(gateway: Gateway) -> None:
    gateway.server.down = True
    refusal = await refusal_of(gateway.reviews, "Bearer t-ann")
    assert refusal.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert refusal.headers["Retry-After"] == "2"
    gateway.server.down = False
    assert (await gateway.reviews.identify("Bearer t-ann", Verb.GET)).name == "kubernetes:ann"


async def test_a_gateway_that_may_not_ask_says_what_it_needs(own_token: Path) -> None:
    def forbidden(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(403, json={"kind": "Status"})

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(forbidden), base_url="https://kubernetes")
    clocks = Clocks(monotonic_seconds=FakeClock(), wall_seconds=FakeClock())
    reviews = KubernetesReviews(Reviewer(client, own_token), FLEET, clocks)
    refusal = await refusal_of(reviews, "Bearer t-ann")
    assert refusal.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert "needs its ClusterRoleBinding" in refusal.detail
    own_token.unlink()  # noqa: ASYNC240
    assert "cannot read its own token" in (await refusal_of(reviews, "Bearer t-ann")).detail


async def test_a_token_is_in_no_log_line_and_in_no_representation(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await gateway.reviews.identify("Bearer t-ann", Verb.GET)
    await refusal_of(gateway.reviews, f"Bearer {planted('token')}")
    told = caplog.text + repr(vars(gateway.reviews)) + repr(vars(gateway.reviews._known))
    assert [token for token in ("t-ann", planted("token")) if token in told] == []


@pytest.mark.holds(
    "tasks.md",
    "Only who may act, or is trusted, names another tenant, in the body or in a header; lists show "
    "tasks by tenant",
)
async def test_who_may_act_on_the_fleets_tenants_may_name_another_tenant(gateway: Gateway) -> None:
    assert await gateway.reviews.may_act("Bearer t-front")
    assert not await gateway.reviews.may_act("Bearer t-root"), "who may list tasks may not act"


@pytest.mark.holds(
    "tasks.md", "16 unknown tokens are checked at a time, with a 429 beyond it, and good callers go on"
)
@pytest.mark.attack("A flood of tokens that are none keeps good callers waiting")
async def test_unknown_tokens_have_few_places_and_good_ones_do_not_wait_for_them(gateway: Gateway) -> None:
    auth, server = gateway.reviews, gateway.server
    await auth.identify("Bearer t-ann", Verb.GET)
    server.held.clear()
    flood = [asyncio.create_task(refusal_of(auth, f"Bearer random{n}")) for n in range(500)]
    await until(lambda: sum(one.done() for one in flood) == 500 - PLACES_OF_UNKNOWN)
    refused = [one.result() for one in flood if one.done()]
    assert {one.status for one in refused} == {HTTPStatus.TOO_MANY_REQUESTS}
    assert {one.headers["Retry-After"] for one in refused} == {"2"}
    await auth.identify("Bearer t-ann", Verb.GET)
    gateway.clock.now = 90  # its answer is too old
    good = asyncio.create_task(auth.identify("Bearer t-ann", Verb.GET))
    await until(lambda: server.asked[-1] == "t-ann")
    server.held.set()
    assert (await good).name == "kubernetes:ann"
    assert {one.status for one in await asyncio.gather(*flood)} >= {HTTPStatus.UNAUTHORIZED}


async def test_places_are_free_again_and_a_refusal_holds_its_own_a_moment_longer(gateway: Gateway) -> None:
    async def refused(number: int) -> HTTPStatus:
        return (await refusal_of(gateway.reviews, f"Bearer random{number}")).status

    first = [await refused(number) for number in range(PLACES_OF_UNKNOWN)]
    assert set(first) == {HTTPStatus.UNAUTHORIZED}
    assert await refused(100) is HTTPStatus.TOO_MANY_REQUESTS
    deadline = time.monotonic() + 30
    while await refused(101) is HTTPStatus.TOO_MANY_REQUESTS:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert (await gateway.reviews.identify("Bearer t-ann", Verb.GET)).name == "kubernetes:ann"


async def test_good_tokens_give_their_places_back_at_once(gateway: Gateway) -> None:
    for number in range(5 * PLACES_OF_UNKNOWN):
        await gateway.reviews.identify(f"Bearer t-ann.{number}", Verb.GET)
        await asyncio.sleep(0)


async def test_a_caller_that_leaves_ends_no_review_that_others_wait_for(gateway: Gateway) -> None:
    gateway.server.held.clear()
    leaves, stays = (
        asyncio.create_task(gateway.reviews.identify("Bearer t-ann", Verb.GET)) for _ in range(2)
    )
    await until(lambda: bool(gateway.server.asked))
    leaves.cancel()
    await asyncio.sleep(0)
    gateway.server.held.set()
    assert (await stays).name == "kubernetes:ann"


def answer(user: str = "ann", *rights: str, refusal: str | None = None) -> Answer:
    return Answer(at=0, until=1, user=user, rights=frozenset(rights), refusal=refusal)


@pytest.mark.attack("A flood of tokens that are none keeps good callers waiting")
def test_what_is_remembered_is_bounded_and_no_flood_pushes_a_good_token_out() -> None:
    known = KnownTokens()
    known.keep(b"good", answer("ann", "get"))
    for number in range(3 * MOST_OTHERS):
        known.keep(b"bad%d" % number, answer(refusal="no"))
        known.keep(b"may nothing%d" % number, answer("eve"))
    for number in range(3 * MOST_OF_ONE_USER):
        known.keep(b"eve%d" % number, answer("eve", "get"))
    assert known.good(b"good") is not None
    assert len(known) == 1 + MOST_OTHERS + MOST_OF_ONE_USER
    for number in range(2 * MOST_GOOD):
        known.keep(b"user%d" % number, answer(f"user{number}", "get"))
    assert len(known) <= MOST_GOOD + MOST_OTHERS


@given(st.text(max_size=80) | st.builds("{}.{}.{}".format, *[st.text(max_size=30)] * 3))
def test_reading_the_claims_of_any_text_fails_nowhere(text: str) -> None:
    claims_of(text)


@pytest.mark.parametrize(
    "claims", [{}, {"aud": []}, {"aud": 7}, {"aud": [7]}, {"exp": "soon"}, {"exp": True}]
)
def test_claims_that_are_none_are_none(claims: Mapping[str, object]) -> None:
    found = claims_of(signed(**claims))
    assert found is not None
    assert (found.audiences, found.expires_at) == (None, None)
