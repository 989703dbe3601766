"""Callers without a token and with keys, and the tenants of all; tokens are in test_reviews.py."""

import asyncio
from http import HTTPStatus
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.gateway.auth import NAMESPACE, CallerKeys, NoAuthentication, Verb, tenant_of
from flotilla_runtime.gateway.problems import ProblemError
from leaks.planted import MARK, planted
from router_support.waiting import until, until_told


async def refusal_of(keys: CallerKeys, authorization: str | None, verb: Verb = Verb.GET) -> ProblemError:
    with pytest.raises(ProblemError) as refusal:
        await keys.identify(authorization, verb)
    return refusal.value


@pytest.mark.holds("tasks.md", "With `None` everybody may do everything")
async def test_without_authentication_everybody_sees_everything() -> None:
    assert (await NoAuthentication().identify(None, Verb.GET)).sees_all


@pytest.mark.parametrize(
    "authorization",
    [
        *(None, "", "Bearer", "Bearer  ", "Basic YTpi", "Bearer wrong"),
        pytest.param(planted("ann"), id="no scheme"),
        pytest.param(f"Bearer {planted('ann')} x", id="more than the key"),
    ],
)
async def test_a_key_that_is_none_is_refused(tmp_path: Path, authorization: str | None) -> None:
    (tmp_path / "ann").write_text(f"{planted('ann')}\n")
    keys = CallerKeys(tmp_path)
    await keys.refresh()
    refusal = await refusal_of(keys, authorization)
    assert refusal.status is HTTPStatus.UNAUTHORIZED
    assert refusal.headers["WWW-Authenticate"].startswith("Bearer")
    assert planted("ann") not in refusal.detail


@pytest.mark.holds("tasks.md", "With `Secret` each entry is a caller, and a change applies without a restart")
async def test_each_entry_of_the_secret_is_a_caller_and_an_empty_one_is_none(tmp_path: Path) -> None:
    (tmp_path / "ann").write_text(planted("a") + "\n")
    (tmp_path / "bob").write_text(planted("b"))
    (tmp_path / "nobody").write_text("\n")
    (tmp_path / "..data").mkdir()
    keys = CallerKeys(tmp_path)
    await keys.refresh()
    assert (await keys.identify(f"Bearer {planted('a')}", Verb.GET)).name == "secret:ann"
    assert (await keys.identify(f"bearer {planted('b')}", Verb.CREATE)).name == "secret:bob"
    assert (await refusal_of(keys, "Bearer ")).status is HTTPStatus.UNAUTHORIZED


async def test_a_key_that_no_header_can_have_is_nobodys_is_told_and_troubles_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unusable = {"bob": b"\xff\xfe\x00" + planted("bob").encode(), "eve": f"{planted('eve')} clé à".encode()}
    unusable["huge"] = planted("huge").encode() * 2**16
    for name, key in {"ann": f" {planted('a')}\r\n".encode(), **unusable}.items():
        (tmp_path / name).write_bytes(key)
    keys = CallerKeys(tmp_path)
    await keys.refresh()
    assert (await keys.identify(f"Bearer {planted('a')}", Verb.GET)).name == "secret:ann"
    for key in unusable.values():
        refusal = await refusal_of(keys, (b"Bearer " + key.strip()).decode("latin-1"))
        assert refusal.status is HTTPStatus.UNAUTHORIZED
    told = capsys.readouterr().out
    assert all(f"the entry {name} " in told for name in unusable)
    assert MARK not in told


async def accepted(keys: CallerKeys, key: str) -> bool:
    try:
        await keys.identify(f"Bearer {key}", Verb.GET)
    except ProblemError:
        return False
    return True


async def comes_to_accept(keys: CallerKeys, key: str) -> None:
    await until_told(lambda: accepted(keys, key))


@pytest.mark.holds("tasks.md", "With `Secret` each entry is a caller, and a change applies without a restart")
async def test_a_changed_secret_applies_without_a_restart(tmp_path: Path) -> None:
    (tmp_path / "ann").write_text("old")
    keys = CallerKeys(tmp_path)
    following = asyncio.create_task(keys.follow(0.01))
    await comes_to_accept(keys, "old")
    (tmp_path / "ann").write_text("new")
    await comes_to_accept(keys, "new")
    assert not await accepted(keys, "old")
    following.cancel()


@pytest.mark.holds(
    "tasks.md",
    "Who may approve finds what waits, reads what is asked, and decides; who decided is in the journal",
)
async def test_the_approvers_of_a_secret_may_decide_and_nobody_else(tmp_path: Path) -> None:
    for name in ("ann", "boss"):
        (tmp_path / name).write_text(planted(name))
    keys = CallerKeys(tmp_path, approvers=["boss"])
    await keys.refresh()
    assert (await keys.identify(f"Bearer {planted('boss')}", Verb.APPROVE)).approves
    assert await keys.may_approve(f"Bearer {planted('boss')}")
    refusal = await refusal_of(keys, f"Bearer {planted('ann')}", Verb.APPROVE)
    assert refusal.status is HTTPStatus.FORBIDDEN
    assert "gateway.auth.approvers" in refusal.detail
    assert not (await keys.identify(f"Bearer {planted('ann')}", Verb.GET)).approves
    assert not await keys.may_approve(f"Bearer {planted('ann')}")


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


@pytest.mark.holds(
    "tasks.md",
    "The tenant is the namespace of a service account, the user's name, the entry of the Secret or "
    "`anonymous`",
)
@pytest.mark.attack("Somebody makes a namespace with the name of a user, to be its tenant")
@pytest.mark.parametrize(
    ("caller", "tenant"),
    [
        pytest.param("kubernetes:system:serviceaccount:team:bot", "team", id="a service account"),
        pytest.param("kubernetes:ann@example.com", "ann@example.com", id="another user"),
        pytest.param("kubernetes:team", "user:team", id="a user who is named as a namespace could be"),
        pytest.param("kubernetes:user:team", "user:user:team", id="a user who is named as such a tenant"),
        pytest.param(
            "kubernetes:system:serviceaccount:team:bot:x",
            "system:serviceaccount:team:bot:x",
            id="a user who is named nearly as a service account",
        ),
        pytest.param("secret:team", "team", id="an entry of a secret"),
        pytest.param("anonymous", "anonymous", id="nobody known"),
    ],
)
def test_the_tenant_of_a_caller(caller: str, tenant: str) -> None:
    assert tenant_of(caller) == tenant


NAMES = st.sampled_from(["", "bob", "user:", "user:bob", "user:user:bob", "kubernetes:", "bob@x"])
USERS = st.builds(str.__add__, NAMES, NAMES | st.text(max_size=8))
ACCOUNTS = st.builds("system:serviceaccount:{}:{}".format, NAMES, NAMES)


def namespace_of(user: str) -> str | None:
    parts = user.split(":")
    is_account = len(parts) == 4 and parts[:2] == ["system", "serviceaccount"] and all(parts[2:])
    return parts[2] if is_account and NAMESPACE.fullmatch(parts[2]) else None


@pytest.mark.attack("Two users are one tenant, because one is named as the tenant of the other")
@given(USERS | ACCOUNTS, USERS | ACCOUNTS)
def test_two_users_are_one_tenant_only_as_accounts_of_one_namespace(one: str, other: str) -> None:
    same = tenant_of(f"kubernetes:{one}") == tenant_of(f"kubernetes:{other}")
    of_one_namespace = namespace_of(one) is not None and namespace_of(one) == namespace_of(other)
    assert not same or one == other or of_one_namespace


async def test_only_a_trusted_entry_may_name_another_tenant(tmp_path: Path) -> None:
    (tmp_path / "front").write_text(planted("f"))
    (tmp_path / "ann").write_text(planted("a"))
    keys = CallerKeys(tmp_path, trusted=["front"])
    await keys.refresh()
    assert await keys.may_act(f"Bearer {planted('f')}")
    assert not await keys.may_act(f"Bearer {planted('a')}")
    with pytest.raises(ProblemError):
        await keys.may_act("Bearer x")
    assert not await NoAuthentication().may_act(None), "else everybody could"
