"""The ``space:`` section of a configuration, read into a Space: each entry's form, values and conditions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from search.condition import conditional_space
from search.problem import Path, Problem, shown, unknown
from search.setting import SEARCHABLE, UNSEARCHED, broken, kind, no_range
from search.space import Categorical, Constant, DepthChoices, Depths, Domain, Float, Int, Space

RANGE, CHOICES = ("low", "high", "log", "step"), ("choices",)


def read_space(raw: Mapping[str, Any], fixed: Mapping[str, tuple[Any, ...]]) -> tuple[Space, list[Problem]]:
    """Reads the section.

    Args:
        raw: key to a constant, {low, high, log, step} or {choices}, the latter two with or without ``when``.
        fixed: the settings that are not searched; several values where it is not decided yet which it will be.

    Returns:
        The space, freeze depths still by name, and all problems; the space is complete only where there are none.
    """
    reader = _Reader()
    for key, spec in raw.items():
        reader.read(key, spec)
    space, problems = conditional_space(raw, reader.domains, fixed)
    return space, reader.problems + problems


@dataclass
class _Reader:
    domains: dict[str, Domain] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, text: str, *path: str | int) -> None:
        self.problems.append(Problem(("space", *path), text))

    def read(self, key: str, spec: Any) -> None:
        if key in UNSEARCHED:
            self.refuse(UNSEARCHED[key], key)
        elif key not in SEARCHABLE:
            self.refuse(f"unknown setting; {unknown(key, SEARCHABLE)}", key)
        elif isinstance(spec, list):
            self.refuse(f"a list is no spec; write {{choices: {shown(spec)}}}", key)
        elif not isinstance(spec, dict):
            values = self._values(key, {(): spec})
            if values:
                self.domains[key] = Constant(values[0])
        elif self._form_is_right(key, spec):
            self._read_form(key, spec)

    def _form_is_right(self, key: str, spec: dict[str, Any]) -> bool:
        before = len(self.problems)
        known = (*RANGE, *CHOICES, "when")
        for name in spec:
            if name not in known:
                self.refuse(f"unknown key; {unknown(name, known)}", key, name)
        if "choices" in spec and any(name in spec for name in RANGE):
            self.refuse("must have either choices or low and high, not both", key)
        elif "choices" not in spec:
            if not spec.keys() >= {"low", "high"}:
                self.refuse("must be a constant, {low: …, high: …} or {choices: […]}", key)
            elif reason := no_range(key):
                self.refuse(reason, key)
        elif not isinstance(spec["choices"], list):
            self.refuse(f"must be a list (got {shown(spec['choices'])})", key, "choices")
        return len(self.problems) == before

    def _read_form(self, key: str, spec: dict[str, Any]) -> None:
        if "choices" in spec:
            values = self._values(key, {("choices", index): value for index, value in enumerate(spec["choices"])})
            arguments = None if values is None else {"choices": tuple(values)}
        else:
            arguments = self._range(key, spec)
        if arguments is not None:
            try:
                self.domains[key] = _domain(key, arguments)
            except ValueError as error:
                self.refuse(str(error), key)

    def _range(self, key: str, spec: dict[str, Any]) -> dict[str, Any] | None:
        """The range's arguments; step and log stay out where they are not given, as the domain has the defaults."""
        bounds = self._values(key, {("low",): spec["low"], ("high",): spec["high"]})
        log, step = spec.get("log", False), spec.get("step")
        before = len(self.problems)
        if not isinstance(log, bool):
            self.refuse(f"must be true or false (got {shown(log)})", key, "log")
        elif log and key == "freeze_depth":
            self.refuse("must be false: depths are counted from 0, which has no logarithm", key, "log")
        whole = key == "freeze_depth" or kind(key) is int
        if step is not None and (isinstance(step, bool) or not isinstance(step, int if whole else int | float)):
            self.refuse(f"must be a {'whole ' if whole else ''}number (got {shown(step)})", key, "step")
        if bounds is None or len(self.problems) > before:
            return None
        steps = {} if step is None else {"step": step if whole else float(step)}
        return {"low": bounds[0], "high": bounds[1], **({"log": True} if log else {}), **steps}

    def _values(self, key: str, found: Mapping[Path, Any]) -> list[Any] | None:
        """The values in the setting's own type, or None, with what is wrong reported, where any cannot be one."""
        before = len(self.problems)
        for path, value in found.items():
            rule = broken(key, value)
            if rule:
                self.refuse(rule, key, *path)
        if len(self.problems) > before:
            return None
        return [float(value) if kind(key) is float else value for value in found.values()]


def _domain(key: str, arguments: dict[str, Any]) -> Domain:
    if "choices" in arguments:
        return DepthChoices(**arguments) if key == "freeze_depth" else Categorical(**arguments)
    if key == "freeze_depth":
        return Depths(**arguments)
    return Int(**arguments) if kind(key) is int else Float(**arguments)
