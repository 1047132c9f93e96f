"""A YAML file, or one value of it, read strictly, with the line on which every key stands."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from trainable.errors import InputError

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Origins:
    """Where settings were written. No part of what they say: two configurations may be equal with other origins."""

    file: str = field(default="", compare=False)
    lines: dict[KeyPath, int | None] = field(default_factory=dict, compare=False)
    """The line of each key in the file; None: it was given on the command line."""

    def where(self, *path: str | int) -> str:
        """'default.yaml:12: space.lr' or '--set space.lr'; a key that was not written stands where its section is."""
        line = self._line(path)
        if line is None:
            return f"--set {dotted(path)}"
        place = f"{self.file}:{line}: " if line else f"{self.file}: " if self.file else ""
        return f"{place}{dotted(path)}" if path else place.rstrip(": ")

    def order(self, path: KeyPath) -> float:
        """Sorts by line, the command line's settings last."""
        line = self._line(path)
        return float("inf") if line is None else line

    def override(self, path: KeyPath) -> None:
        """Notes that the command line gave this key, and so all that is below it."""
        for known in [known for known in self.lines if known[: len(path)] == path]:
            del self.lines[known]
        self.lines[path] = None

    def _line(self, path: KeyPath) -> int | None:
        """The line of the longest part of the path that was written, 0 if none was."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return 0


def dotted(path: KeyPath) -> str:
    """('search', 'first', 0, 'lr') as search.first[0].lr."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def read_yaml(file: Path) -> tuple[dict[str, Any], Origins]:
    """Reads a file whose top is a mapping.

    Raises:
        InputError: if it cannot be read, is no YAML, is empty, has a key twice or one that is no text.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{file} cannot be read: {reason}") from error
    origins = Origins(file.name)
    tree = _parse(text, file.name, origins)
    if tree is None:
        raise InputError(f"{file.name} is empty; a configuration has at least the sections data, model and space")
    if not isinstance(tree, dict):
        raise InputError(f"{file.name} must be a mapping of sections, data: and so on (got {_kind(tree)})")
    return tree, origins


def read_value(text: str, name: str) -> Any:
    """Reads one YAML value, such as the command line gives; ``name`` says in messages where it comes from."""
    return _parse(text, name, Origins(name))


class _Loader(yaml.SafeLoader):
    """Safe YAML whose numbers are those that people write: 1e-4 is a number, 1:30 and 010 are not 90 and 8."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("bool", "null")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)$")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def _parse(text: str, name: str, origins: Origins) -> Any:
    loader: Any = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        problems: list[str] = []
        tree = None if node is None else _Tree(loader, origins, problems).build(node, (), ())
    except yaml.YAMLError as error:
        raise InputError(f"{name}{_line_of(error)}: not valid YAML: {_reason(error)}") from error
    finally:
        if loader is not None:
            loader.dispose()
    if problems:
        raise InputError("\n".join(problems))
    return tree


@dataclass
class _Tree:
    """Builds plain values from nodes, and writes down lines and problems on the way."""

    loader: Any
    origins: Origins
    problems: list[str]

    def build(self, node: Any, path: KeyPath, above: tuple[int, ...]) -> Any:
        if id(node) in above:
            self.problems.append(f"{self.origins.where(*path)}: must not contain itself; write the value out")
            return None
        above = (*above, id(node))
        if isinstance(node, yaml.MappingNode):
            return {key: self.build(value, (*path, key), above) for key, value in self._entries(node, path)}
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.origins.lines[*path, index] = item.start_mark.line + 1
            return [self.build(item, (*path, index), above) for index, item in enumerate(node.value)]
        return self.loader.construct_object(node)

    def _entries(self, node: yaml.MappingNode, path: KeyPath) -> Iterator[tuple[str, Any]]:
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self.loader.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                got = getattr(key_node, "value", "") if isinstance(key_node, yaml.ScalarNode) else _kind([])
                self.problems.append(f"{self.origins.file}:{line}: a key must be text (got {got}); quote it")
                continue
            place = f"{self.origins.file}:{line}: {dotted((*path, key))}"
            if key in seen:
                self.problems.append(f"{place}: stands twice (first on line {seen[key]}); keep one")
                continue
            seen[key] = line
            self.origins.lines[*path, key] = line
            yield key, value_node


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else str(value)


def _line_of(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f":{mark.line + 1}" if mark else ""


def _reason(error: yaml.YAMLError) -> str:
    return " ".join(str(getattr(error, "problem", None) or getattr(error, "reason", None) or error).split())
