"""The values that one parameter can take: a range, a choice, or a constant."""

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

ROUNDING = 1e-8
"""How far, in steps or relative to a bound, a value may be off and still count as inside (Optuna's own tolerance)."""


class Trial(Protocol):
    """What a domain asks of an Optuna trial."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...
    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


@dataclass(frozen=True)
class Float:
    """Real numbers from ``low`` to ``high``, both included; with a step, ``high`` is lowered to the last multiple."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        check_range(self.low, self.high, self.log, self.step)
        if self.step is not None:
            low, high, step = (Decimal(str(number)) for number in (self.low, self.high, self.step))
            object.__setattr__(self, "high", float(low + (high - low) // step * step))

    def suggest(self, trial: Trial, name: str) -> float:
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def contains(self, value: Any) -> bool:
        if not is_number(value):
            return False
        slack = ROUNDING * (self.step or min(abs(value), self.high - self.low))
        on_grid = self.step is None or math.isclose(self.nearest(value), value, rel_tol=0, abs_tol=slack)
        return self.low - slack <= value <= self.high + slack and on_grid

    def nearest(self, value: Any) -> float:
        number = min(max(float(value), self.low), self.high) if is_number(value) else self.low
        if self.step is not None:
            number = min(self.low + round((number - self.low) / self.step) * self.step, self.high)
        return number

    def values(self) -> tuple[float, ...] | None:
        if self.step is None:
            return None
        count = round((self.high - self.low) / self.step) + 1
        return tuple(min(self.low + index * self.step, self.high) for index in range(count))

    def cut(self, steps: int) -> tuple[float, ...]:
        """``steps`` values from low to high, evenly spaced, on the logarithm's scale if that is how it is searched."""
        shares = [index / (steps - 1) for index in range(1, steps - 1)]
        if self.log:
            inner = [self.low * (self.high / self.low) ** share for share in shares]
        else:
            inner = [self.low + (self.high - self.low) * share for share in shares]
        return self.low, *inner, self.high

    def __str__(self) -> str:
        return range_text(self.low, self.high, self.log, self.step)


@dataclass(frozen=True)
class Int:
    """Whole numbers from ``low`` to ``high``, both included; with a step, ``high`` is lowered to the last multiple."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def __post_init__(self) -> None:
        check_range(self.low, self.high, self.log, None if self.step == 1 else self.step)
        object.__setattr__(self, "high", self.high - (self.high - self.low) % self.step)

    def suggest(self, trial: Trial, name: str) -> int:
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)

    def contains(self, value: Any) -> bool:
        return is_number(value) and value == int(value) and int(value) in self._range()

    def nearest(self, value: Any) -> int:
        number = min(max(value, self.low), self.high) if is_number(value) else self.low
        return self.low + round((number - self.low) / self.step) * self.step

    def values(self) -> tuple[int, ...]:
        return tuple(self._range())

    def _range(self) -> range:
        return range(self.low, self.high + 1, self.step)

    def __str__(self) -> str:
        return range_text(self.low, self.high, self.log, None if self.step == 1 else self.step)


@dataclass(frozen=True)
class Categorical:
    """One of ``choices``, in the order in which they were given."""

    choices: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError("choices must hold at least one value")
        twice = [value for index, value in enumerate(self.choices) if value in self.choices[:index]]
        if twice:
            raise ValueError(f"choices must differ (got {twice[0]} twice)")

    def suggest(self, trial: Trial, name: str) -> Any:
        return trial.suggest_categorical(name, self.choices)

    def contains(self, value: Any) -> bool:
        return not isinstance(value, bool) and value in self.choices

    def nearest(self, value: Any) -> Any:
        """The choice itself, the nearest number (in ratio where all are positive), or the first choice."""
        if self.contains(value):
            return self.choices[self.choices.index(value)]
        if not all(is_number(number) for number in (value, *self.choices)):
            return self.choices[0]
        if min(value, *self.choices) > 0:
            return min(self.choices, key=lambda choice: abs(math.log(choice) - math.log(value)))
        return min(self.choices, key=lambda choice: abs(choice - value))

    def values(self) -> tuple[Any, ...]:
        return self.choices

    def __str__(self) -> str:
        return " | ".join(text_of(choice) for choice in self.choices)


@dataclass(frozen=True)
class Constant:
    """One value, which is not sampled: the study does not know of it."""

    value: Any

    def suggest(self, trial: Trial, name: str) -> Any:
        return self.value

    def contains(self, value: Any) -> bool:
        return not isinstance(value, bool) and value == self.value

    def nearest(self, value: Any) -> Any:
        return self.value

    def values(self) -> tuple[Any, ...]:
        return (self.value,)

    def __str__(self) -> str:
        return f"{text_of(self.value)} (constant)"


def check_range(low: float, high: float, log: bool, step: float | None) -> None:
    """Raises ValueError where these do not make a range."""
    if low > high:
        raise ValueError(f"low must be below high, but the range is reversed (got low {low}, high {high})")
    if low == high:
        raise ValueError(f"low and high are both {low}; write the constant {low} instead")
    if log and low <= 0:
        raise ValueError(f"low must be > 0 where log is true, as zero has no logarithm (got {low})")
    if log and step is not None:
        raise ValueError(f"step cannot go with log: true (got step {step}); leave out one of the two")
    if step is not None and not 0 < step <= high - low:
        raise ValueError(f"step must be > 0 and at most high - low = {high - low:g} (got {step})")
    if step is not None and (high - low) / step > 1e9:
        raise ValueError(f"step must be larger: {step} gives over 1e9 values; leave it out for a continuous range")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def range_text(low: Any, high: Any, log: bool, step: float | None) -> str:
    parts = [f"{text_of(low)} … {text_of(high)}"]
    if log:
        parts.append("log")
    if step is not None:
        parts.append(f"step {text_of(step)}")
    return ", ".join(parts)


def text_of(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
