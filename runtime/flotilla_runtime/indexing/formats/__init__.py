"""One parser for each format: from bytes to a title and sections, or a `DocumentError`."""
