"""A search space: parameters, the conditions under which they are searched, and what a trial is given from them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from search.domain import Categorical, Constant, Float, Int, Trial
from search.symbolic_depth import DepthChoices, Depths

__all__ = ["Categorical", "Constant", "DepthChoices", "Depths", "Domain", "Float", "Int", "Parameter", "Space"]

Domain = Float | Int | Categorical | Constant | Depths | DepthChoices
"""What a parameter's values are; the last two stand for freeze depths until a backbone numbers them."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of the study: the setting it sets, the values it takes, and when it is searched."""

    name: str
    """Its name in the study. It differs from ``key`` only where several parameters set one key, each under another
    condition: "freeze_depth@resnet18"."""
    key: str
    """The setting that it sets."""
    domain: Domain
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """The settings that decide, and the values of each with which this parameter is searched; empty: always."""

    def active(self, chosen: Mapping[str, Any]) -> bool:
        """Whether the values chosen so far let this parameter be searched; what is not chosen fulfils nothing."""
        return all(key in chosen and chosen[key] in allowed for key, allowed in self.when.items())

    def __str__(self) -> str:
        conditions = [f"{key} is {' or '.join(map(str, allowed))}" for key, allowed in self.when.items()]
        return f"{self.domain}, when {' and '.join(conditions)}" if conditions else str(self.domain)


@dataclass(frozen=True, repr=False)
class Space:
    """Parameters in the order in which they are suggested: a condition's key comes before what depends on it."""

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        names = [parameter.name for parameter in self.parameters]
        if len(set(names)) < len(names):
            raise ValueError(f"parameters must have names of their own (got {', '.join(names)})")
        for index, parameter in enumerate(self.parameters):
            late = {later.key for later in self.parameters[index:]} & set(parameter.when)
            if late:
                raise ValueError(f"{', '.join(late)} must come before {parameter.name}, whose condition names it")

    @property
    def keys(self) -> tuple[str, ...]:
        """The settings that the space sets, each once."""
        return tuple(dict.fromkeys(parameter.key for parameter in self.parameters))

    @property
    def sampled(self) -> tuple[Parameter, ...]:
        """The parameters that are no constants: those that the study knows."""
        return tuple(parameter for parameter in self.parameters if not isinstance(parameter.domain, Constant))

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Asks ``trial`` for a value of every active parameter; returns settings by key, without the inactive ones."""
        chosen: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.active(chosen):
                chosen[parameter.key] = parameter.domain.suggest(trial, parameter.name)
        return chosen

    def params(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The study's parameters that stand for settings: what to enqueue so that ``suggest`` returns ``values``.

        Keys may be missing (the sampler chooses those), constants are checked and left out. Raises ValueError where a
        key is unknown, a value lies outside its domain, or its parameter is not searched with the other values.
        """
        for key in values:
            if key not in self.keys:
                raise ValueError(f"{key} is not in the space, which has {', '.join(self.keys)}")
        params: dict[str, Any] = {}
        chosen: dict[str, Any] = {}
        for parameter in self.parameters:
            domain = parameter.domain
            if not parameter.active(chosen):
                continue
            if parameter.key in values and not domain.contains(values[parameter.key]):
                raise ValueError(f"{parameter.key} must lie in {domain} (got {values[parameter.key]})")
            if isinstance(domain, Constant):
                chosen[parameter.key] = domain.value
            elif parameter.key in values:
                chosen[parameter.key] = params[parameter.name] = _normal(domain, values[parameter.key])
        self._refuse_inactive(values, chosen)
        return params

    def nearest(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """``values`` moved into the space where they lie outside; what the space does not have, or does not search
        with the other values, is left out. Constants are filled in."""
        moved: dict[str, Any] = {}
        for parameter in self.parameters:
            fixed = isinstance(parameter.domain, Constant)
            if parameter.active(moved) and (fixed or parameter.key in values):
                value = values.get(parameter.key)
                inside = not fixed and parameter.domain.contains(value)
                moved[parameter.key] = _normal(parameter.domain, value) if inside else parameter.domain.nearest(value)
        return moved

    def size(self) -> int | None:
        """The number of distinct configurations; None where there are infinitely many."""
        count = self._count(0, {})
        return None if math.isinf(count) else int(count)

    def configurations(self) -> Iterator[dict[str, Any]]:
        """All configurations of a finite space, as the study's parameters by name (so without constants)."""
        if self.size() is None:
            raise ValueError("a space with a continuous parameter has no list of configurations")
        return self._walk(0, {}, {})

    def grid(self, steps: int) -> dict[str, list[Any]]:
        """The values by the study's name for a grid sampler; continuous parameters are cut in ``steps`` (>= 2) values.

        Raises ValueError for a space with conditions: a grid would train the same configuration again for every value
        of a parameter that is not in use.
        """
        conditional = [parameter.name for parameter in self.sampled if parameter.when]
        if conditional:
            raise ValueError(f"a grid cannot have conditions (got some on {', '.join(conditional)})")
        return {parameter.name: _cut(parameter.domain, steps) for parameter in self.sampled}

    def describe(self) -> str:
        """A line a parameter: ``lr            0.0001 … 0.1, log``."""
        width = max((len(parameter.name) for parameter in self.parameters), default=0)
        return "\n".join(f"{parameter.name:{width}}  {parameter}" for parameter in self.parameters)

    def __repr__(self) -> str:
        return f"Space({'; '.join(f'{parameter.name}: {parameter}' for parameter in self.parameters)})"

    def _refuse_inactive(self, values: Mapping[str, Any], chosen: Mapping[str, Any]) -> None:
        for parameter in self.parameters:
            if parameter.key in values and parameter.key not in chosen:
                got = ", ".join(f"{key} {chosen.get(key, 'not given')}" for key in parameter.when)
                raise ValueError(f"{parameter.key} is not searched here: {parameter} (got {got})")

    def _count(self, index: int, chosen: dict[str, Any]) -> float:
        """The number of ways to fill the parameters from ``index`` on; branches only where a condition decides."""
        if index == len(self.parameters):
            return 1
        parameter = self.parameters[index]
        if not parameter.active(chosen):
            return self._count(index + 1, chosen)
        values = parameter.domain.values()
        if values is None:
            return math.inf
        if not any(parameter.key in later.when for later in self.parameters[index + 1 :]):
            return len(values) * self._count(index + 1, chosen)
        return sum(self._count(index + 1, {**chosen, parameter.key: value}) for value in values)

    def _walk(self, index: int, chosen: dict[str, Any], params: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if index == len(self.parameters):
            yield params
            return
        parameter = self.parameters[index]
        if not parameter.active(chosen):
            yield from self._walk(index + 1, chosen, params)
            return
        for value in parameter.domain.values() or ():
            named = {} if isinstance(parameter.domain, Constant) else {parameter.name: value}
            yield from self._walk(index + 1, {**chosen, parameter.key: value}, {**params, **named})


def _normal(domain: Domain, value: Any) -> Any:
    """A value of the domain in the domain's own type (4.0 as 4, 0 as 0.0), never beyond its bounds by rounding."""
    if isinstance(domain, Float):
        return min(max(float(value), domain.low), domain.high)
    return domain.nearest(value)


def _cut(domain: Domain, steps: int) -> list[Any]:
    values = domain.cut(steps) if isinstance(domain, Float) and domain.step is None else domain.values()
    return list(values or ())
