"""Converts the declarations and results of MCP servers to those of tools. Pure."""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, Final

import mcp_types as types

from flotilla_runtime.agent.models import ToolDeclaration
from flotilla_runtime.agent.models.values import shown
from flotilla_runtime.agent.tools.declarations import DeclarationError, declared_check
from flotilla_runtime.agent.tools.values import Tool
from flotilla_runtime.contract import ToolConfig, ToolTrouble

MOST_NAME: Final = 64  # of the characters of a name that models' servers take
MOST_DESCRIPTION: Final = 4096
MOST_SCHEMA_BYTES: Final = 32 * 1024
UNUSABLE_NAME: Final = re.compile(r"[^A-Za-z0-9_-]")
HASH_LENGTH: Final = 8


def tool_name(entry: str, name: str) -> str:
    """The agent's name for a server's tool: the entry's name and its own.

    A name that no model's server would take is made shorter or cleaner, and a hash of it keeps it apart.
    """
    clean = UNUSABLE_NAME.sub("_", name)
    whole = f"{entry}_{clean}"
    if clean == name and len(whole) <= MOST_NAME:
        return whole
    digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:HASH_LENGTH]
    return f"{whole[: MOST_NAME - HASH_LENGTH - 1]}_{digest}"


def config_of(config: ToolConfig, name: str) -> ToolConfig:
    """The configuration of one tool of a server; its effect is its own, or that of the server's entry."""
    choices = {choice.name: choice for choice in (config.mcp.tools if config.mcp is not None else ())}
    own = choices[name].effect if name in choices else None
    update = {"name": tool_name(config.name, name), "effect": own or config.effect}
    return config.model_copy(update=update)


def declared_tool(config: ToolConfig, told: types.Tool, reconcile: Any = None) -> Tool:
    """A tool as its server declares it. Raises DeclarationError."""
    schema = told.input_schema
    size = len(json.dumps(schema))
    if size > MOST_SCHEMA_BYTES:
        said = f"declares arguments in {size} bytes, and at most {MOST_SCHEMA_BYTES} are shown"
        raise DeclarationError(ToolTrouble.UNUSABLE, f"the tool {told.name[:100]} {said}")
    own = config_of(config, told.name)
    words = "\n".join(filter(None, (config.description, told.description)))
    declaration = ToolDeclaration(name=own.name, description=words[:MOST_DESCRIPTION], parameters=schema)
    return Tool(
        config=own,
        declaration=declaration,
        problem_of=declared_check(schema),
        reconcile=reconcile,
    )


def value_of(result: types.CallToolResult) -> Any:
    """The value of a result: its structured content if there is some, else its text, else its blocks."""
    if result.structured_content is not None:
        return result.structured_content
    blocks = [_block(block) for block in result.content]
    if all(isinstance(block, str) for block in blocks):
        return "\n".join(blocks)
    return blocks


def problem_of(result: types.CallToolResult) -> str:
    """The problem that a tool reports."""
    return shown(_texts(result.content) or "the tool failed and does not say why")


def _texts(blocks: Sequence[types.ContentBlock]) -> str:
    return "\n".join(text for block in blocks if isinstance(text := _block(block), str))


def _block(block: types.ContentBlock) -> Any:
    """A block of content. Images and sounds are told of and not kept: no model here could take them."""
    match block:
        case types.TextContent():
            return block.text
        case types.EmbeddedResource(resource=types.TextResourceContents() as resource):
            return resource.text
        case types.ResourceLink():
            return {"type": block.type, "uri": str(block.uri), "name": block.name}
        case types.ImageContent() | types.AudioContent():
            return {"type": block.type, "mimeType": block.mime_type, "left": "its data is not kept"}
        case _:
            return {"type": block.type, "left": "its data is not kept"}
