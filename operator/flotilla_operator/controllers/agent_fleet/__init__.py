"""The controller of AgentFleets: Redis, gateways and as many workers as the tasks need."""
