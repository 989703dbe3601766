"""Makes docs/tested.md from the marks `holds` on tests: see `make generate`."""
