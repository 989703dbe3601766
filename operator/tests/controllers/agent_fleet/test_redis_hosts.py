"""The hosts of a Redis URL, as they are compared with where a password may be sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_operator.controllers.agent_fleet.redis_hosts import SENTINEL_PORT, hosts_of
from flotilla_operator.objects.send_to import why_not_sent


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        pytest.param(b"redis://a.example:6379/0", ("redis://a.example:6379",), id="one"),
        pytest.param(
            b"rediss://user:p%40ss@a:1,b:2/0?x=y", ("redis://a:1", "redis://b:2"), id="two behind a password"
        ),
        pytest.param(b"redis://[fd00::7],b", ("redis://[fd00::7]:6379", "redis://b:6379"), id="no ports"),
        pytest.param(b" redis://a.example:1\n", ("redis://a.example:1",), id="a line break at its end"),
        pytest.param(b"redis://a:1,,b:2,", ("redis://a:1", "redis://b:2"), id="commas too many"),
        pytest.param(b"redis://:12/34@a.example:1", (None,), id="a password with a slash"),
        pytest.param(b"redis://:12?34@a.example:1", (None,), id="a password with a question mark"),
        pytest.param(b"redis://:12#34@a.example:1", (None,), id="a password with a hash"),
        pytest.param(b"unix:///run/redis", (None,), id="a socket"),
        pytest.param(b"postgresql://a.example:1", (None,), id="a database"),
        pytest.param(b"hf_token", (None,), id="a token"),
        pytest.param(b"redis://user:p@", (None,), id="no host"),
        pytest.param(b"redis://:a@b@c.example:1", ("redis://c.example:1",), id="a password with an @"),
        pytest.param(b"a.example", (None,), id="no URL"),
        pytest.param(b"\xff", (None,), id="no text"),
    ],
)
def test_hosts(url: bytes, hosts: tuple[str | None, ...]) -> None:
    assert hosts_of(url) == hosts


def test_sentinels_have_a_port_of_their_own() -> None:
    assert hosts_of(b"redis://a,b:1", usual_port=SENTINEL_PORT) == ("redis://a:26379", "redis://b:1")


@pytest.mark.holds(
    "security.md",
    "The URL of a Redis goes to the hosts that its Secret lists, and no message has a part of it",
)
@given(password=st.text(alphabet="ab1:/?#@,.[]% ", min_size=1, max_size=12), tail=st.sampled_from(["", "/0"]))
def test_no_part_of_a_password_is_taken_for_a_host(password: str, tail: str) -> None:
    """However it is written, what is told is the host of the URL, or that it cannot be read."""
    for host in hosts_of(f"redis://user:{password}@redis.example:6379{tail}".encode()):
        assert host in (None, "redis://redis.example:6379")


def test_a_host_that_hides_behind_another_is_seen() -> None:
    (first, second) = hosts_of(b"redis://good.example:1,evil.example:2/0")
    assert why_not_sent("good.example", first, required=True) is None
    assert "evil.example:2" in (why_not_sent("good.example", second, required=True) or "")
