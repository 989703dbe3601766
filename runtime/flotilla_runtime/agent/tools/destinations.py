"""Where the calls of a tool go, in words for who approves one. Pure."""

from flotilla_runtime.agent.tools.values import Tool


def destination_of(tool: Tool) -> str:
    """The method and the URL of the tool, its function, or its statement; never a secret."""
    config = tool.config
    if tool.operation is not None:
        return f"{tool.operation.method} {tool.operation.url}"
    if config.http is not None:
        return f"{config.http.method} {config.http.url}"
    if config.openapi is not None:
        return f"operation {config.openapi.operation_id} of {config.openapi.document_url}"
    if config.mcp is not None:
        return f"MCP server {config.mcp.url}"
    if config.sql is not None:
        return f"SQL: {config.sql.query}"
    return f"function {config.python}"
