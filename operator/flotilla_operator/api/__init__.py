"""The three kinds as pydantic models, from which the custom resource definitions are generated."""
