"""LangGraph graphs as agents.

All but `loading` and `fields` import LangGraph, which only the image of a fleet with `spec.agent.graph` has.
"""
