"""The request bodies that the double reads."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from engine_double.shapes import JSON

MaxTokens = Annotated[int, Field(ge=1)]


class StreamOptions(BaseModel):
    """Contents of a stream besides tokens."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class Generation(BaseModel):
    """The fields that chat and completion requests share."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = None
    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    ignore_eos: bool = False
    cache_salt: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    @property
    def limit(self) -> int | None:
        """The caller's limit under either of its names."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def wants_usage(self) -> bool:
        """Whether the stream ends with a chunk of token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def wants_continuous_usage(self) -> bool:
        """Whether every chunk of the stream has the token counts so far."""
        options = self.stream_options
        return options is not None and options.include_usage and options.continuous_usage_stats


class Conversation(BaseModel):
    """The fields from which the prompt of a chat is made."""

    messages: Annotated[list[JSON], Field(min_length=1)]
    tools: list[JSON] | None = None
    continue_final_message: bool = False
    add_generation_prompt: bool | None = None

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.continue_final_message and self.add_generation_prompt:
            raise ValueError("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
        return self


class ChatRequest(Generation, Conversation):
    """POST /v1/chat/completions."""

    tool_choice: str | JSON | None = None
    response_format: JSON | None = None

    @property
    def forced_tool(self) -> str | None:
        """The tool that the caller named."""
        choice = self.tool_choice
        return choice.get("function", {}).get("name") if isinstance(choice, dict) else None


class TokenizeRequest(BaseModel):
    """POST /tokenize for a text."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = None
    prompt: str


class TokenizeChatRequest(Conversation):
    """POST /tokenize for a chat."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = None


class AnyTokenizeRequest(RootModel[TokenizeRequest | TokenizeChatRequest]):
    """POST /tokenize."""

    @property
    def model(self) -> str | None:
        """The model that is asked."""
        return self.root.model


class CompletionRequest(Generation):
    """POST /v1/completions."""

    prompt: str | list[str]


class EmbeddingRequest(BaseModel):
    """POST /v1/embeddings."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = None
    input: str | list[str]
