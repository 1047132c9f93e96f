"""Freeze depths by name, such as "all" or "layer3": how many stages that is depends on the backbone."""

from dataclasses import dataclass
from typing import Any, NoReturn

from search.domain import Categorical, Trial, check_range, is_number, range_text


class _Symbolic:
    """Depths by name, which mean nothing before a backbone numbers them (:func:`search.depths.resolve_depths`)."""

    def suggest(self, trial: Trial, name: str) -> NoReturn:
        raise RuntimeError(f"{name} still has depths by name ({self}); call resolve_depths first")

    def contains(self, value: Any) -> bool:
        """Whether it could be a depth at all; whether it lies inside is known once the depths are resolved."""
        return isinstance(value, str) or (is_number(value) and value >= 0 and value == int(value))

    def nearest(self, value: Any) -> Any:
        return value

    def values(self) -> NoReturn:
        raise RuntimeError(f"{self} holds depths by name; call resolve_depths first")


@dataclass(frozen=True)
class Depths(_Symbolic):
    """Freeze depths from ``low`` to ``high``: ordinals, names of stages or blocks, or "all"."""

    low: int | str
    high: int | str
    step: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.low, int) and isinstance(self.high, int):
            check_range(self.low, self.high, False, None if self.step == 1 else self.step)
        if self.low == self.high:
            raise ValueError(f"low and high are both {self.low}; write the constant {self.low} instead")

    def __str__(self) -> str:
        return range_text(self.low, self.high, False, None if self.step == 1 else self.step)


@dataclass(frozen=True)
class DepthChoices(_Symbolic):
    """Freeze depths to choose from: ordinals, names of stages or blocks, or "all"."""

    choices: tuple[int | str, ...]

    def __post_init__(self) -> None:
        Categorical(self.choices)

    def __str__(self) -> str:
        return str(Categorical(self.choices))
