"""Measures the cost of `isolateTenants`."""
