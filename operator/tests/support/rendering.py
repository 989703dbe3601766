"""Rendered manifests as texts to compare: readable ones for golden files, and inputs in another order."""

import json
import random
from typing import Any

import yaml


class Readable(yaml.SafeDumper):
    """Every value written out, texts of several lines as they are."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def as_block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Readable.add_representer(str, as_block)


def yaml_of(objects: list[dict[str, Any]]) -> str:
    return yaml.dump_all(objects, Dumper=Readable, sort_keys=True, allow_unicode=True, width=110)


def json_of(objects: list[dict[str, Any]]) -> str:
    """The same text for the same objects, many times faster than YAML."""
    return json.dumps(objects, sort_keys=True)


def shuffled(value: Any, shuffler: random.Random) -> Any:
    """The same value with the keys of every mapping in another order."""
    if isinstance(value, dict):
        items = [(key, shuffled(item, shuffler)) for key, item in value.items()]
        shuffler.shuffle(items)
        return dict(items)
    return [shuffled(item, shuffler) for item in value] if isinstance(value, list) else value
