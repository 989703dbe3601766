"""Measurements: scraping the pods, and the operator's own metrics."""
