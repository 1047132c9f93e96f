"""The conditions of a space (``when:``): read, ordered, and decided where they can be at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from search.problem import Problem, shown, unknown
from search.setting import broken
from search.space import Constant, Domain, Parameter, Space


def conditional_space(
    raw: Mapping[str, Any], domains: Mapping[str, Domain], fixed: Mapping[str, tuple[Any, ...]]
) -> tuple[Space, list[Problem]]:
    """Joins domains and conditions to a space.

    Args:
        raw: the section as written; its specs may hold ``when``.
        domains: of each key in it whose spec is right.
        fixed: the settings that are not searched; several values where it is not decided yet which it will be.

    Returns:
        The space, without parameters that can never be active, and the problems of the conditions.
    """
    reader = _Reader(raw, domains, fixed)
    for key, spec in raw.items():
        reader.read(key, spec)
    order = reader.order()
    return (Space(()) if order is None else reader.space(order)), reader.problems


@dataclass
class _Reader:
    raw: Mapping[str, Any]
    domains: Mapping[str, Domain]
    fixed: Mapping[str, tuple[Any, ...]]
    conditions: dict[str, dict[str, tuple[Any, ...]]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, text: str, *path: str | int) -> None:
        self.problems.append(Problem(("space", *path), text))

    def read(self, key: str, spec: Any) -> None:
        when = spec.get("when", {}) if isinstance(spec, dict) else {}
        if not isinstance(when, dict):
            self.refuse(f"must be a section such as {{optimizer: adamw}} (got {shown(when)})", key, "when")
            return
        self.conditions[key] = {}
        for name, allowed in when.items():
            values = tuple(allowed) if isinstance(allowed, list) else (allowed,)
            reason = self._no_condition(name, values)
            if reason:
                self.refuse(reason, key, "when", name)
            else:
                self.conditions[key][name] = values

    def _no_condition(self, name: str, values: tuple[Any, ...]) -> str | None:
        if name == "freeze_depth":
            return "cannot be a condition: its values depend on the backbone"
        if name not in self.raw and name not in self.fixed:
            return f"unknown setting; {unknown(name, [*self.raw, *self.fixed])}"
        if not values:
            return "must name at least one value"
        for value in values:
            rule = broken(name, value)
            if rule:
                return rule
            domain = self.domains.get(name)
            if domain is not None and not domain.contains(value):
                return f"is never {value}: its values are {domain}"
            if name not in self.raw and name == "backbone" and value not in self.fixed[name]:
                return f"is never {value}: model.backbone is {', '.join(self.fixed[name])}"
        return None

    def order(self) -> list[str] | None:
        """Keys, each after those that its condition names, else as they were written; None in case of a circle."""
        placed: list[str] = []

        def place(key: str, above: tuple[str, ...]) -> bool:
            if key in above:
                circle = " → ".join([*above[above.index(key) :], key])
                self.refuse(f"conditions must not go round in a circle ({circle})", key, "when")
                return False
            before = [name for name in self.conditions.get(key, {}) if name in self.raw]
            before += ["backbone"] if key == "freeze_depth" and "backbone" in self.raw else []
            if key not in placed:
                if not all(place(name, (*above, key)) for name in before):
                    return False
                placed.append(key)
            return True

        return placed if all(place(key, ()) for key in self.raw) else None

    def space(self, order: list[str]) -> Space:
        """The parameters that can be active; conditions that are decided already are left out."""
        parameters: list[Parameter] = []
        known = {name: values for name, values in self.fixed.items() if name not in self.raw}
        for key in order:
            if key not in self.domains:
                continue
            conditions = self.conditions.get(key, {})
            if any(not set(known[name]) & set(values) for name, values in conditions.items() if name in known):
                known[key] = ()
                continue
            left = {
                name: values
                for name, values in conditions.items()
                if name not in known or not set(known[name]) <= set(values)
            }
            domain = self.domains[key]
            if isinstance(domain, Constant) and not left:
                known[key] = (domain.value,)
            parameters.append(Parameter(key, key, domain, left))
        return Space(tuple(parameters))
