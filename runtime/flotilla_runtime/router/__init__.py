"""HAProxy's configuration and the small agent that keeps its servers current."""
