"""The task API in the form of OpenAI's: chat completions, responses, models."""
