"""A rendered text as parts with a title: the objects of a YAML file, the sections of a configuration.

Each line of an object knows its path (`spec.template.spec.containers[agent].env`), so that a few lines can be
shown alone.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import yaml

Path = tuple[str, ...]

# yaml.CSafeLoader is many times faster and is missing only where PyYAML was built without libyaml.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some lines of a text under a title that no other part of the text has."""

    title: str
    lines: tuple[str, ...]
    paths: tuple[Path, ...] = field(compare=False)


def objects_of(text: str) -> list[Part]:
    """The objects of a YAML stream, as `yaml.dump_all` writes it."""
    return [_object(document) for document in re.split(r"^---\n", text, flags=re.MULTILINE)]


def sections_of(text: str) -> list[Part]:
    """A section begins with a line that is neither indented nor empty; what comes first is called `head`."""
    titled = [("head", "")]
    for line in _lines(text):
        titled.append((line if line and not line.startswith(" ") else titled[-1][0], line))
    sections = [
        (title, tuple(line for _, line in found)) for title, found in groupby(titled[1:], lambda one: one[0])
    ]
    return [Part(title=title, lines=lines, paths=((),) * len(lines)) for title, lines in sections]


def renamed(parts: Sequence[Part], old: str, new: str) -> list[Part]:
    """The same parts for an owner of another name: values and titles that are the name or begin with it.

    The name of a model or of a folder may be the same word, so the rule looks at what is around it. A rule
    that takes too much or too little makes a difference longer; it cannot make it wrong.
    """
    name = re.compile(rf'((?<!value): "?|uid-|default/|\w://|^\w+ ){re.escape(old)}(?=[-"]| in |$)')
    return _changed(parts, lambda text: name.sub(rf"\g<1>{new}", text))


def replaced(parts: Sequence[Part], words: Mapping[str, str]) -> list[Part]:
    """The same parts with other words, wherever they are: ids that are made of an owner's name or spec."""
    if not words:
        return list(parts)
    any_word = re.compile("|".join(re.escape(word) for word in words))
    return _changed(parts, lambda text: any_word.sub(lambda found: words[found[0]], text))


def _changed(parts: Sequence[Part], change: Callable[[str], str]) -> list[Part]:
    return [
        replace(part, title=change(part.title), lines=tuple(change(line) for line in part.lines))
        for part in parts
    ]


def _object(document: str) -> Part:
    loaded: dict[str, Any] = yaml.load(document, LOADER)
    name = loaded["metadata"]["name"] if "metadata" in loaded else loaded["name"]
    namespace = loaded.get("namespace")
    title = f"{loaded['kind']} {name}" + (f" in {namespace}" if namespace else "")
    lines = _lines(document)
    return Part(title=title, lines=lines, paths=_paths(document, len(lines)))


def _lines(text: str) -> tuple[str, ...]:
    assert text.endswith("\n")
    return tuple(text.removesuffix("\n").split("\n"))


def _paths(document: str, lines: int) -> tuple[Path, ...]:
    """The path of the innermost key that starts at each line or before it."""
    starts: dict[int, Path] = {}
    root = yaml.compose(document, LOADER)
    assert root is not None, "an empty document"
    _note_starts(root, (), starts)
    paths: list[Path] = []
    for line in range(lines):
        paths.append(starts.get(line, paths[-1] if paths else ()))
    return tuple(paths)


def _note_starts(node: yaml.Node, path: Path, starts: dict[int, Path]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, _key(key.value))
            starts[key.start_mark.line] = inner
            _note_starts(value, inner, starts)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            inner = (*path, f"[{_name_in(item) or index}]")
            starts[item.start_mark.line] = inner
            _note_starts(item, inner, starts)


def _key(key: str) -> str:
    return f".{key}" if re.fullmatch(r"\w+", key) else f'["{key}"]'


def _name_in(item: yaml.Node) -> str | None:
    """Return the item's `name`, which identifies the items of most lists in Kubernetes."""
    if not isinstance(item, yaml.MappingNode):
        return None
    names = [value.value for key, value in item.value if key.value == "name"]
    return names[0] if names and isinstance(names[0], str) else None
