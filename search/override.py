"""A setting given on the command line: ``--set space.lr=0.01``."""

from collections.abc import Sequence
from typing import Any

from search.yaml_source import KeyPath, Origins, dotted, read_value
from trainable.errors import InputError


def apply_overrides(tree: dict[str, Any], origins: Origins, overrides: Sequence[str]) -> None:
    """Writes each "key.path=value" into the tree, the later over the earlier, and notes where it comes from.

    The value is YAML: a number, text, ``[a, b]`` or ``{low: 0, high: 1}``. Sections that are missing are made.

    Raises:
        InputError: where one is malformed, or leads through something that is not a section.
    """
    for override in overrides:
        path, value = _parsed(override)
        section = tree
        for depth, part in enumerate(path[:-1], start=1):
            if section.get(part) is None:
                section[part] = {}
                origins.override(path[:depth])
            inner = section[part]
            if not isinstance(inner, dict):
                raise InputError(_no_section(path, path[:depth], value))
            section = inner
        section[path[-1]] = value
        origins.override(path)


def _parsed(override: str) -> tuple[tuple[str, ...], Any]:
    key, equals, text = override.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise InputError(f'--set takes key.path=value, for example space.lr=0.01 (got "{override}")')
    if not text.strip():
        raise InputError(f"--set {key} must have a value, null for none (got an empty one)")
    return path, read_value(text, f"--set {key.strip()}")


def _no_section(path: KeyPath, plain: KeyPath, value: Any) -> str:
    return (
        f"--set {dotted(path)}: {dotted(plain)} is a value, not a section; "
        f"give it as a whole: --set '{dotted(plain)}={{..., {dotted(path[len(plain) :])}: {value}}}'"
    )
