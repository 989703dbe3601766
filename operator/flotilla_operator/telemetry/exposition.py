"""Reads Prometheus text, keeping only the metrics that somebody asked for.

An engine exposes over a thousand lines, most of them histogram buckets that no decision reads. Lines are
told apart by their name alone and only the wanted ones are parsed, because this runs for every pod every few
seconds.
"""

import re
from collections.abc import Collection, Mapping
from typing import Final

from flotilla_operator.telemetry.measurements import Sample

_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)",?')
_ESCAPES: Final = {r"\\": "\\", r"\"": '"', r"\n": "\n"}
_ESCAPE: Final = re.compile(r'\\[\\"n]')


def parse_exposition(text: str, wanted: Collection[str] | None = None) -> Mapping[str, list[Sample]]:
    """The samples by metric name; of the wanted names only, or of all. Raises ValueError on a broken line."""
    samples: dict[str, list[Sample]] = {}
    for line in text.splitlines():
        if not line or line[0] == "#":
            continue
        name = _NAME.match(line)
        if name is None:
            raise ValueError(f"not a sample: {line[:100]!r}")
        if wanted is None or name.group() in wanted:
            samples.setdefault(name.group(), []).append(_sample(line, name.end()))
    return samples


def _sample(line: str, position: int) -> Sample:
    labels: dict[str, str] = {}
    if line[position : position + 1] == "{":
        position += 1
        while (label := _LABEL.match(line, position)) is not None:
            labels[label[1]] = _ESCAPE.sub(lambda escape: _ESCAPES[escape.group()], label[2])
            position = label.end()
        if line[position : position + 1] != "}":
            raise ValueError(f"labels that do not end: {line[:100]!r}")
        position += 1
    fields = line[position:].split()
    if not fields:
        raise ValueError(f"no value: {line[:100]!r}")
    return Sample(labels=labels, value=float(fields[0]))
