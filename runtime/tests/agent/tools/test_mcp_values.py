"""Names, results and declarations of MCP servers; no server."""

from typing import Any

import mcp_types as types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.agent.tools.declarations import DeclarationError
from flotilla_runtime.agent.tools.mcp_values import config_of, declared_tool, problem_of, tool_name, value_of
from flotilla_runtime.contract import Effect, McpServer, McpToolChoice, ToolConfig

TEXT = types.TextContent(type="text", text="sunny")
IMAGE = types.ImageContent(type="image", data="AAAA", mime_type="image/png")
LINK = types.ResourceLink(type="resource_link", uri="file:///a", name="a")
EMBEDDED = types.EmbeddedResource(
    type="resource", resource=types.TextResourceContents(uri="file:///b", text="inside")
)
BLOB = types.EmbeddedResource(type="resource", resource=types.BlobResourceContents(uri="f:///c", blob="AA"))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        pytest.param("search", "git_search", id="a plain name"),
        pytest.param("repo.search", "git_repo_search_65621cfa", id="one that no model's server takes"),
        pytest.param("repo_search", "git_repo_search", id="and the one that it would be taken for"),
    ],
)
def test_a_tool_has_the_name_of_its_entry_and_its_own(name: str, told: str) -> None:
    assert tool_name("git", name) == told


@pytest.mark.holds("tools.md", "Names of MCP tools are short, clean and different")
@given(st.text(min_size=1), st.text(min_size=1))
def test_names_are_short_clean_and_different(one: str, other: str) -> None:
    names = [tool_name("e" * 63, name) for name in (one, other)]
    assert all(len(name) <= 64 and name.replace("_", "").replace("-", "").isalnum() for name in names)
    assert (names[0] == names[1]) is (one == other)


@pytest.mark.parametrize(
    ("result", "value"),
    [
        pytest.param({"content": [TEXT], "structured_content": {"c": 21}}, {"c": 21}, id="structured"),
        pytest.param({"content": [TEXT, EMBEDDED]}, "sunny\ninside", id="texts"),
        pytest.param({"content": []}, "", id="nothing"),
        pytest.param(
            {"content": [TEXT, IMAGE, LINK, BLOB]},
            [
                "sunny",
                {"type": "image", "mimeType": "image/png", "left": "its data is not kept"},
                {"type": "resource_link", "uri": "file:///a", "name": "a"},
                {"type": "resource", "left": "its data is not kept"},
            ],
            id="more than texts",
        ),
    ],
)
def test_what_a_result_is_worth(result: dict[str, Any], value: Any) -> None:
    assert value_of(types.CallToolResult(**result)) == value


def test_what_a_tool_says_that_went_wrong() -> None:
    assert problem_of(types.CallToolResult(content=[TEXT, IMAGE], is_error=True)) == "sunny"
    assert "does not say why" in problem_of(types.CallToolResult(content=[], is_error=True))


@pytest.mark.holds("tools.md", "Each tool of an MCP server has an effect of its own")
def test_each_tool_of_a_server_has_an_effect_of_its_own() -> None:
    chosen = (McpToolChoice(name="read", effect=Effect.PURE), McpToolChoice(name="write"))
    config = ToolConfig(name="git", mcp=McpServer(url="http://git", tools=chosen), effect=Effect.IDEMPOTENT)
    effects = {name: config_of(config, name).effect for name in ("read", "write")}
    assert effects == {"read": Effect.PURE, "write": Effect.IDEMPOTENT}
    assert config_of(ToolConfig(name="git", mcp=McpServer(url="http://git")), "any").effect is Effect.UNSAFE


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        pytest.param({"type": "object", "title": "x" * 40_000}, "at most 32768 are shown", id="too large"),
        pytest.param({"type": "sentence"}, "no JSON Schema", id="no schema"),
    ],
)
def test_a_declaration_that_can_be_no_tool_says_why(schema: dict[str, Any], says: str) -> None:
    with pytest.raises(DeclarationError, match=says):
        declared_tool(ToolConfig(name="git"), types.Tool(name="t", input_schema=schema))
