"""A mistake in a configuration: where it stands and what must hold instead."""

import difflib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

Path = tuple[str | int, ...]

RULES = {
    "greater_than": "must be > {gt:g}",
    "greater_than_equal": "must be >= {ge:g}",
    "less_than": "must be < {lt:g}",
    "less_than_equal": "must be <= {le:g}",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "literal_error": "must be {expected}",
    "tuple_type": "must be a list",
    "dict_type": "must be a section of keys and values",
    "model_type": "must be a section of keys and values",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}
"""Pydantic's error types in the words used here; the braces are its context."""

TYPES = {"int_type", "int_from_float", "float_type", "string_type", "bool_type", "literal_error"}
"""Errors that say no more than that a value is of another kind: what a union's other members say counts first."""


@dataclass(frozen=True)
class Problem:
    path: Path
    text: str


def problems_in(error: ValidationError, model: type[BaseModel], tree: Any) -> list[Problem]:
    """Pydantic's errors about ``tree`` in words; the members of a union are joined to one problem."""
    found: dict[Path, list[Any]] = {}
    for detail in error.errors(include_url=False):
        found.setdefault(_in_tree(detail["loc"], detail["type"], tree), []).append(detail)
    return [Problem(path, _text(path, details, model)) for path, details in found.items()]


def refusal(title: str, problems: Iterable[Problem]) -> ValidationError:
    """The problems as the one exception that pydantic merges into what else it finds."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError("problem", "{text}", {"text": problem.text}), loc=problem.path, input=None
        )
        for problem in problems
    ]
    return ValidationError.from_exception_data(title, details)


def broken_rule(model: type[BaseModel], key: str, value: Any) -> str | None:
    """What the model's field ``key`` demands that ``value`` does not fulfil; None if all is well."""
    try:
        model.model_validate({key: value}, strict=True)
    except ValidationError as error:
        texts = [problem.text for problem in problems_in(error, model, {key: value}) if problem.path[0] == key]
        return texts[0] if texts else None
    return None


def unknown(name: str, names: Iterable[str]) -> str:
    """The end of a sentence about a name that does not exist: the nearest that does, or all."""
    names = list(names)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"there is {', '.join(names)}"


def shown(value: Any) -> str:
    """A value as YAML would have it, cut to a line's length."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def unusable_numbers(tree: Any, path: Path = ()) -> Iterator[Problem]:
    """Every number that no setting may be: infinite, not a number, or beyond what a study can store."""
    if isinstance(tree, float) and not math.isfinite(tree):
        yield Problem(path, f"must be finite (got {tree})")
    if isinstance(tree, int) and abs(tree) >= 2**63:
        yield Problem(path, f"must be below 2^63 (got {shown(tree)})")
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from unusable_numbers(value, (*path, key))


def _in_tree(path: Path, kind: str, tree: Any) -> Path:
    """Pydantic's location without the names of a union's members; only some kinds are about a key that is not there."""
    for index, part in enumerate(path):
        known = part in tree if isinstance(tree, dict) else isinstance(tree, list) and part in range(len(tree))
        if not known:
            absent = isinstance(tree, dict) and kind in ("missing", "extra_forbidden", "problem")
            return path[: index + 1] if absent else path[:index]
        tree = tree[part]
    return path


def _text(path: Path, details: list[Any], model: type[BaseModel]) -> str:
    telling = [detail for detail in details if detail["type"] not in TYPES] or details
    first = telling[0]
    if first["type"] == "extra_forbidden":
        return _unknown_key(path, model)
    if first["type"] == "missing":
        return "must be given"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    if first["type"] == "problem":
        return "; ".join(detail["msg"] for detail in telling)
    rules = [RULES[detail["type"]].format(**detail.get("ctx", {})) for detail in telling if detail["type"] in RULES]
    rule = " or ".join(rules).replace(" or must be ", " or ") or first["msg"]
    return f"{rule} (got {shown(first['input'])})"


def _unknown_key(path: Path, model: type[BaseModel]) -> str:
    key = str(path[-1])
    homes = [name for name, field in model.model_fields.items() if key in _fields(field.annotation)]
    if homes:
        return f"unknown key; it belongs under {homes[0]}"
    names: Any = model
    for part in path[:-1]:
        names = names.model_fields[part].annotation
    return f"unknown key; {unknown(key, _fields(names))}"


def _fields(annotation: Any) -> list[str]:
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return list(annotation.model_fields) if is_model else []
