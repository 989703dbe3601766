"""Where a Secret may be sent: what its annotation lists, what it does not, and what cannot be read."""

import pytest

from flotilla_operator.objects.send_to import address_of, why_not_sent

HOST = "huggingface.co"
HUB = "https://huggingface.co"


@pytest.mark.holds(
    "security.md", "A Secret is sent only where its annotation says; an entry is a host, or a host and a port"
)
@pytest.mark.parametrize(
    ("annotation", "url"),
    [
        pytest.param(None, "http://anywhere.example", id="no annotation"),
        pytest.param("huggingface.co", HUB, id="a host, each of its ports"),
        pytest.param("huggingface.co", "https://huggingface.co:8443/api", id="another port of it"),
        pytest.param("huggingface.co:443", HUB, id="the port of the scheme"),
        pytest.param("HuggingFace.co.", HUB, id="written otherwise"),
        pytest.param("a.example, huggingface.co:443", HUB, id="the second of two"),
        pytest.param("[fd00::7]:19530", "http://[FD00::7]:19530", id="an IPv6 address"),
        pytest.param("10.0.0.7:19530", "http://10.0.0.7:19530", id="an IPv4 address"),
    ],
)
def test_what_may_be_sent(annotation: str | None, url: str) -> None:
    assert why_not_sent(annotation, url, required=False) is None


@pytest.mark.holds(
    "tools.md",
    "Secrets with headers of tools, MCP servers, documents and validators, and URLs of databases, "
    "go only where `flotilla.dev/send-to` says; else `ToolsReady` names the field",
)
@pytest.mark.holds(
    "security.md", "A Secret is sent only where its annotation says; an entry is a host, or a host and a port"
)
@pytest.mark.parametrize(
    ("annotation", "url", "words"),
    [
        pytest.param(
            "huggingface.co", "https://evil.example", "does not list evil.example:443", id="elsewhere"
        ),
        pytest.param("huggingface.co:443", "http://huggingface.co", "huggingface.co:80", id="another port"),
        pytest.param("example.com", "https://a.example.com", "a.example.com:443", id="a name below it"),
        pytest.param("a.example.com", "https://example.com", "example.com:443", id="the name above it"),
        pytest.param(
            "huggingface.co", "https://huggingface.co@evil.example", "no readable host", id="a user's name"
        ),
        pytest.param(
            "huggingface.co", "https://huggingface.co.evil.example", "evil.example", id="a longer name"
        ),
        pytest.param("", HUB, "does not list huggingface.co:443", id="an empty list"),
        pytest.param("*", HUB, "no host and no host:port", id="a star"),
        pytest.param("https://huggingface.co", HUB, "no host and no host:port", id="a URL"),
        pytest.param("huggingface.co:many", HUB, "no host and no host:port", id="a port that is none"),
        pytest.param("huggingface.co", None, "not by valueFrom", id="an unknown address"),
        pytest.param("huggingface.co", "http://", "no readable host", id="no host"),
        pytest.param("huggingface.co", "http://a:99999", "no readable host", id="no port"),
        pytest.param("huggingface.co", "http://huggingface.co:0", "no readable host", id="the port 0"),
        pytest.param(
            "huggingface.co",
            "https://evil.example$(SLASH)@huggingface.co",
            "no readable host",
            id="what the kubelet turns into another host",
        ),
        pytest.param(
            "huggingface.co",
            r"https://evil.example\@huggingface.co",
            "no readable host",
            id="what clients read in different ways",
        ),
    ],
)
def test_what_may_not_be_sent(annotation: str, url: str | None, words: str) -> None:
    why = why_not_sent(annotation, url, required=False)
    assert why is not None
    assert words in why


@pytest.mark.holds(
    "security.md", "A Secret is sent only where its annotation says; an entry is a host, or a host and a port"
)
def test_where_it_is_required_a_secret_says_where_it_may_go() -> None:
    why = why_not_sent(None, HUB, required=True)
    assert why is not None
    assert "flotilla.dev/send-to: huggingface.co:443" in why
    assert why_not_sent("huggingface.co", HUB, required=True) is None


def test_an_address_is_shown_as_it_is_to_be_written() -> None:
    assert str(address_of("http://[::1]:19530/x")) == "[::1]:19530"


@pytest.mark.holds("security.md", "Proxies that an object names in its variables must be listed too")
@pytest.mark.parametrize(
    ("annotation", "proxy", "words"),
    [
        pytest.param("huggingface.co", "http://evil.example:3128", "evil.example:3128", id="another host"),
        pytest.param("huggingface.co", None, "not by valueFrom", id="not known"),
        pytest.param("huggingface.co", "$(ELSEWHERE)", "no readable host", id="a variable"),
    ],
)
def test_a_proxy_that_is_not_listed_gets_nothing(annotation: str, proxy: str | None, words: str) -> None:
    why = why_not_sent(annotation, HUB, required=False, through=[proxy])
    assert why is not None
    assert words in why
    assert "proxy" in why


def test_a_proxy_that_is_listed_is_used() -> None:
    listed = "huggingface.co, proxy.example:3128"
    assert why_not_sent(listed, HUB, required=False, through=["http://proxy.example:3128"]) is None
    assert why_not_sent(None, HUB, required=False, through=["http://evil.example"]) is None
