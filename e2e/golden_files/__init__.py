"""Golden files that a person can review: one whole file, and for each other scenario what differs from it."""

from golden_files.difference import Whole, difference, restored
from golden_files.parts import Part, objects_of, renamed, replaced, sections_of

__all__ = ["Part", "Whole", "difference", "objects_of", "renamed", "replaced", "restored", "sections_of"]
