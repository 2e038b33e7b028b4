"""YAML files that people write: read safely, with the line of every key for error messages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from groupnorm_bench.errors import ConfigError
from groupnorm_bench.files import read_bounded

MAX_YAML_BYTES = 1_000_000
MAX_NODES = 100_000
"""Nodes after aliases are expanded; a few nested aliases can stand for billions."""


@dataclass(frozen=True, slots=True)
class YamlFile:
    """A mapping read from a file, and where each of its keys stands."""

    path: Path
    data: dict[str, Any]
    lines: dict[tuple[str, ...], int]

    def where(self, *keys: str) -> str:
        """Return `file:line` of the key reached by `keys`, or of its nearest parent."""
        for length in range(len(keys), 0, -1):
            if keys[:length] in self.lines:
                return f"{self.path}:{self.lines[keys[:length]]}"
        return str(self.path)


def read_yaml(path: Path) -> YamlFile:
    """Read a YAML mapping with string keys.

    Raises:
        ConfigError: the file is missing, unreadable, too large, not YAML, not a mapping, empty,
            or holds a Python tag, a duplicate key or aliases that expand without bound.
    """
    text = _read_text(path)
    try:
        loader = yaml.SafeLoader(text)
    except yaml.YAMLError as error:  # control characters
        raise ConfigError(_explain(path, error)) from error
    try:
        root = loader.get_single_node()
        if root is None:
            raise ConfigError(f"{path} is empty; write one `key: value` a line")
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(
                f"{path} holds a list or one value, not settings; write one `key: value` a line"
            )
        lines: dict[tuple[str, ...], int] = {}
        _count_nodes(path, root)
        for keys, line in _walk(path, root, ()):
            lines[keys] = line
        data = loader.construct_document(root)
    except yaml.YAMLError as error:
        raise ConfigError(_explain(path, error)) from error
    except (ValueError, RecursionError, TypeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    finally:
        loader.dispose()
    return YamlFile(path, data, lines)


def _read_text(path: Path) -> str:
    try:
        content = read_bounded(path, MAX_YAML_BYTES)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give the path of a YAML file") from error
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        if b"\0" in content and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise ConfigError(f"{path} is not a text file; give a YAML file") from error
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line} is not in UTF-8; save the file as UTF-8") from error


def _count_nodes(path: Path, root: yaml.Node) -> None:
    """Refuse a document that would be huge once its aliases are written out."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in open_nodes:
            raise ConfigError(f"{path} has an alias that contains itself; write the values out")
        if id(node) not in sizes:
            open_nodes.add(id(node))
            if isinstance(node, yaml.MappingNode):
                children = [child for pair in node.value for child in pair]
            else:
                children = node.value if isinstance(node, yaml.SequenceNode) else []
            sizes[id(node)] = 1 + sum(size(child) for child in children)
            open_nodes.discard(id(node))
        return sizes[id(node)]

    if size(root) > MAX_NODES:
        raise ConfigError(
            f"{path} expands to over {MAX_NODES:,} values through its aliases; write them out"
        )


def _walk(
    path: Path, node: yaml.Node, prefix: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:  # its keys are checked, but have no path of their own
            for _ in _walk(path, item, prefix):
                pass
        return
    if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":int") and len(node.value) > 40:
        raise ConfigError(
            f"{path}:{node.start_mark.line + 1} has a number of {len(node.value):,} digits; "
            "write a smaller one"
        )
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or not isinstance(key_node.value, str):
            raise ConfigError(f"{path}:{line} has a key that is not a word; write `key: value`")
        key = key_node.value
        if key in seen:
            raise ConfigError(f"{path}:{line} has the key {key!r} twice; keep one of them")
        seen.add(key)
        yield (*prefix, key), line
        yield from _walk(path, value_node, (*prefix, key))


def _explain(path: Path, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
    if "could not determine a constructor for the tag" in problem:
        return f"{where} has a tag that is not plain YAML; write plain values"
    return f"{where} is not valid YAML: {' '.join(problem.split())}"
