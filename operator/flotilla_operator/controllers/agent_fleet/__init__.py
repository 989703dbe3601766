"""AgentFleet: observe, plan, and what it amounts to."""
