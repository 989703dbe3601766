"""The router: HAProxy's configuration, and the agent that keeps its servers up to date."""
