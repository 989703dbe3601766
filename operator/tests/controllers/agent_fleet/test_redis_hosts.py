"""The hosts of a Redis URL, as they are compared with where a password may be sent."""

import pytest

from flotilla_operator.controllers.agent_fleet.redis_hosts import hosts_of
from flotilla_operator.objects.send_to import why_not_sent


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        pytest.param(b"redis://a.example:6379/0", ("redis://a.example:6379",), id="one"),
        pytest.param(
            b"rediss://user:p%40ss@a:1,b:2/0?x=y", ("redis://a:1", "redis://b:2"), id="two behind a password"
        ),
        pytest.param(b"redis://[fd00::7],b", ("redis://[fd00::7]:26379", "redis://b:26379"), id="no ports"),
        pytest.param(b"redis://:a@b@c.example:1", ("redis://c.example:1",), id="a password with an @"),
        pytest.param(b"a.example", (None,), id="no URL"),
        pytest.param(b"\xff", (None,), id="no text"),
    ],
)
def test_hosts(url: bytes, hosts: tuple[str | None, ...]) -> None:
    assert hosts_of(url) == hosts


def test_a_host_that_hides_behind_another_is_seen() -> None:
    (first, second) = hosts_of(b"redis://good.example:1,evil.example:2/0")
    assert why_not_sent("good.example", first, required=True) is None
    assert "evil.example:2" in (why_not_sent("good.example", second, required=True) or "")
