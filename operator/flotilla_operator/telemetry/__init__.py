"""I/O for measurements: scraping what the pods report, and the operator's own metrics."""
