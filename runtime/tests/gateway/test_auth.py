"""The three ways of letting callers in; the real API server is in test_kubernetes_auth.py."""

import asyncio
import json
import logging
from http import HTTPStatus
from pathlib import Path
from typing import ClassVar

import httpx2
import pytest
import structlog

from flotilla_runtime.gateway.auth import (
    CallerKeys,
    FleetName,
    KubernetesReviews,
    NoAuthentication,
    Verb,
    tenant_of,
)
from flotilla_runtime.gateway.problems import ProblemError
from router_support.waiting import until, until_told

FLEET = FleetName(namespace="default", name="support")


async def refusal_of(
    keys: CallerKeys | KubernetesReviews, authorization: str | None, verb: Verb = Verb.GET
) -> ProblemError:
    with pytest.raises(ProblemError) as refusal:
        await keys.identify(authorization, verb)
    return refusal.value


async def test_without_authentication_everybody_sees_everything() -> None:
    assert (await NoAuthentication().identify(None, Verb.GET)).sees_all


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer  ", "Basic YTpi", "Bearer wrong", "s3cret-a", "Bearer s3cret-a x"],
)
async def test_a_key_that_is_none_is_refused(tmp_path: Path, authorization: str | None) -> None:
    (tmp_path / "ann").write_text("s3cret-a\n")
    keys = CallerKeys(tmp_path)
    await keys.refresh()
    refusal = await refusal_of(keys, authorization)
    assert refusal.status is HTTPStatus.UNAUTHORIZED
    assert refusal.headers["WWW-Authenticate"].startswith("Bearer")
    assert "s3cret" not in refusal.detail


async def test_each_entry_of_the_secret_is_a_caller_and_an_empty_one_is_none(tmp_path: Path) -> None:
    (tmp_path / "ann").write_text("a-key\n")
    (tmp_path / "bob").write_text("b-key")
    (tmp_path / "nobody").write_text("\n")
    (tmp_path / "..data").mkdir()
    keys = CallerKeys(tmp_path)
    await keys.refresh()
    assert (await keys.identify("Bearer a-key", Verb.GET)).name == "secret:ann"
    assert (await keys.identify("bearer b-key", Verb.CREATE)).name == "secret:bob"
    assert (await refusal_of(keys, "Bearer ")).status is HTTPStatus.UNAUTHORIZED


async def test_a_key_that_no_header_can_have_is_nobodys_is_told_and_troubles_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unusable = {"bob": b"\xff\xfe\x00key\n", "eve": "hush clé à".encode(), "huge": b"hush" * 2**18}
    for name, key in {"ann": b" a-key\r\n", **unusable}.items():
        (tmp_path / name).write_bytes(key)
    keys = CallerKeys(tmp_path)
    await keys.refresh()
    assert (await keys.identify("Bearer a-key", Verb.GET)).name == "secret:ann"
    for key in unusable.values():
        refusal = await refusal_of(keys, (b"Bearer " + key.strip()).decode("latin-1"))
        assert refusal.status is HTTPStatus.UNAUTHORIZED
    told = capsys.readouterr().out
    assert all(f"the entry {name} " in told for name in unusable)
    assert "hush" not in told


async def accepted(keys: CallerKeys, key: str) -> bool:
    try:
        await keys.identify(f"Bearer {key}", Verb.GET)
    except ProblemError:
        return False
    return True


async def comes_to_accept(keys: CallerKeys, key: str) -> None:
    await until_told(lambda: accepted(keys, key))


async def test_a_changed_secret_applies_without_a_restart(tmp_path: Path) -> None:
    (tmp_path / "ann").write_text("old")
    keys = CallerKeys(tmp_path)
    following = asyncio.create_task(keys.follow(0.01))
    await comes_to_accept(keys, "old")
    (tmp_path / "ann").write_text("new")
    await comes_to_accept(keys, "new")
    assert not await accepted(keys, "old")
    following.cancel()


async def test_the_approvers_of_a_secret_may_decide_and_nobody_else(tmp_path: Path) -> None:
    for name in ("ann", "boss"):
        (tmp_path / name).write_text(f"{name}-key")
    keys = CallerKeys(tmp_path, approvers=["boss"])
    await keys.refresh()
    assert (await keys.identify("Bearer boss-key", Verb.APPROVE)).approves
    assert await keys.may_approve("Bearer boss-key")
    refusal = await refusal_of(keys, "Bearer ann-key", Verb.APPROVE)
    assert refusal.status is HTTPStatus.FORBIDDEN
    assert "gateway.auth.approvers" in refusal.detail
    assert not (await keys.identify("Bearer ann-key", Verb.GET)).approves
    assert not await keys.may_approve("Bearer ann-key")


class StumblingKeys(CallerKeys):
    """Keys whose second reading goes wrong in a way nobody thought of."""

    readings = 0

    async def refresh(self) -> None:
        self.readings += 1
        if self.readings == 2:
            raise RuntimeError("unthought of")
        await super().refresh()


async def test_a_reading_that_goes_wrong_is_logged_and_is_not_the_last(tmp_path: Path) -> None:
    keys = StumblingKeys(tmp_path)
    with structlog.testing.capture_logs() as logged:
        following = asyncio.create_task(keys.follow(0.01))
        await until(lambda: keys.readings >= 3)
        (tmp_path / "ann").write_text("key")
        await comes_to_accept(keys, "key")
        following.cancel()
    assert "caller_keys_not_read" in [line["event"] for line in logged]


async def test_a_secret_that_is_not_mounted_lets_nobody_in(tmp_path: Path) -> None:
    keys = CallerKeys(tmp_path / "missing")
    await keys.refresh()
    assert (await refusal_of(keys, "Bearer x")).status is HTTPStatus.UNAUTHORIZED


class ApiServer:
    """Knows two tokens; `down` makes it fail."""

    verbs: ClassVar = {
        "t-ann": {"create", "get"},
        "t-root": {"create", "get", "list", "approve"},
        "t-new": {"get"},
        "t-front": {"create", "get", "act"},
        "t-boss": {"approve"},
        "t-lister": {"list"},
    }

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.down = False

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        body = json.loads(request.content)
        attributes = body.get("spec", {}).get("resourceAttributes", {})
        self.asked.append((token, attributes.get("verb", "who")))
        if self.down:
            raise httpx2.ConnectError("refused")
        if token not in self.verbs:
            return httpx2.Response(401, json={"kind": "Status"})
        if body["kind"] == "SelfSubjectReview":
            return httpx2.Response(201, json={"status": {"userInfo": {"username": token.removeprefix("t-")}}})
        assert attributes["resource"] == "agentfleets"
        about = "tenants" if attributes["verb"] == "act" else "tasks"
        assert (attributes["subresource"], attributes["name"]) == (about, "support")
        return httpx2.Response(201, json={"status": {"allowed": attributes["verb"] in self.verbs[token]}})


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def reviews(server: ApiServer, clock: FakeClock) -> KubernetesReviews:
    client = httpx2.AsyncClient(transport=httpx2.MockTransport(server), base_url="https://kubernetes")
    return KubernetesReviews(client, FLEET, clock)


async def test_a_token_is_asked_about_and_the_answer_is_kept_for_a_minute() -> None:
    server, clock = ApiServer(), FakeClock()
    auth = reviews(server, clock)
    identity = await auth.identify("Bearer t-ann", Verb.CREATE)
    assert (identity.name, identity.sees_all) == ("kubernetes:ann", False)
    assert (await auth.identify("Bearer t-root", Verb.GET)).sees_all
    asked = len(server.asked)
    clock.now = 59
    await auth.identify("Bearer t-root", Verb.GET)
    assert len(server.asked) == asked
    clock.now = 61
    await auth.identify("Bearer t-root", Verb.GET)
    assert len(server.asked) > asked


async def test_a_caller_without_the_verb_is_told_which_to_get() -> None:
    refusal = await refusal_of(reviews(ApiServer(), FakeClock()), "Bearer t-new", Verb.CREATE)
    assert refusal.status is HTTPStatus.FORBIDDEN
    assert "new may not create tasks of the AgentFleet support in namespace default" in refusal.detail


@pytest.mark.parametrize("token", ["é", "t-ann\u00a0", "t\tann", "t\x7f"])
async def test_a_token_that_no_api_server_gives_is_refused_without_being_asked_about(token: str) -> None:
    server = ApiServer()
    refusal = await refusal_of(reviews(server, FakeClock()), f"Bearer {token}")
    assert (refusal.status, server.asked) == (HTTPStatus.UNAUTHORIZED, [])


async def test_who_may_only_approve_reads_what_waits_for_it_and_nothing_of_its_own() -> None:
    auth = reviews(ApiServer(), FakeClock())
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


async def test_a_refusal_is_kept_for_a_few_seconds_only() -> None:
    server, clock = ApiServer(), FakeClock()
    auth = reviews(server, clock)
    for _ in range(2):
        assert (await refusal_of(auth, "Bearer expired")).status is HTTPStatus.UNAUTHORIZED
    assert len(server.asked) == 1
    clock.now = 6
    await refusal_of(auth, "Bearer expired")
    assert len(server.asked) == 2


async def test_an_api_server_that_is_away_is_a_503_and_not_a_401() -> None:
    server, clock = ApiServer(), FakeClock()
    server.down = True
    auth = reviews(server, clock)
    refusal = await refusal_of(auth, "Bearer t-ann")
    assert refusal.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert refusal.headers["Retry-After"] == "2"
    server.down = False
    assert (await auth.identify("Bearer t-ann", Verb.GET)).name == "kubernetes:ann"


async def test_a_token_is_in_no_log_line_and_in_no_representation(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    auth = reviews(ApiServer(), FakeClock())
    await auth.identify("Bearer t-ann", Verb.GET)
    await refusal_of(auth, "Bearer s3cret-token")
    told = caplog.text + repr(vars(auth))
    assert [token for token in ("t-ann", "s3cret-token") if token in told] == []


@pytest.mark.attack("Somebody makes a namespace with the name of a user, to be its tenant")
@pytest.mark.parametrize(
    ("caller", "tenant"),
    [
        pytest.param("kubernetes:system:serviceaccount:team:bot", "team", id="a service account"),
        pytest.param("kubernetes:ann@example.com", "ann@example.com", id="another user"),
        pytest.param("kubernetes:team", "user:team", id="a user who is named as a namespace could be"),
        pytest.param("secret:team", "team", id="an entry of a secret"),
        pytest.param("anonymous", "anonymous", id="nobody known"),
    ],
)
def test_the_tenant_of_a_caller(caller: str, tenant: str) -> None:
    assert tenant_of(caller) == tenant


async def test_only_a_trusted_entry_may_name_another_tenant(tmp_path: Path) -> None:
    (tmp_path / "front").write_text("f-key")
    (tmp_path / "ann").write_text("a-key")
    keys = CallerKeys(tmp_path, trusted=["front"])
    await keys.refresh()
    assert await keys.may_act("Bearer f-key")
    assert not await keys.may_act("Bearer a-key")
    with pytest.raises(ProblemError):
        await keys.may_act("Bearer x")
    assert not await NoAuthentication().may_act(None), "else everybody could"


async def test_who_may_act_on_the_fleets_tenants_may_name_another_tenant() -> None:
    auth = reviews(ApiServer(), FakeClock())
    assert await auth.may_act("Bearer t-front")
    assert not await auth.may_act("Bearer t-root"), "who may list tasks may not act"
