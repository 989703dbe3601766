"""One parser a format: bytes in, title and sections out, `DocumentError` when there is no way."""
