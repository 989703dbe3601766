"""The process that runs Python functions of a fleet's image for its workers."""
