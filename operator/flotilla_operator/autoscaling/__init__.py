"""Autoscaling: takes signals, a policy and what it remembered, returns a decision with its reason. Pure."""
