"""The task API in the form of the Agent2Agent (A2A) protocol."""
