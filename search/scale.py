"""A parameter's values as places on an axis: linear, logarithmic, or one place a choice."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from search.style import label

_DECADES = 1.5
"""The span from which an axis of positive numbers is logarithmic."""

_FEW = 6
"""Up to so many distinct values, each has a tick, where there is room for its text."""

_ROOM = 0.09
"""What a tick's text needs of an axis from 0 to 1."""


@dataclass(frozen=True)
class Scale:
    """Where the values of one parameter lie on an axis from 0 to 1."""

    name: str
    kind: str
    """linear, log or choices."""
    places: NDArray[np.float64]
    """[trials]; NaN where the parameter had no value."""
    ticks: tuple[tuple[float, str], ...]
    """(place, text)."""


def make_scale(name: str, values: pd.Series) -> Scale | None:
    """The scale of a column of ``trials.csv``; None where no trial had a value."""
    values = values.reset_index(drop=True)
    known = values.dropna()
    if known.empty:
        return None
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return _choices(name, values, sorted(known.astype(str).unique()))
    numbers = values.to_numpy(float, copy=True)
    numbers[~np.isfinite(numbers)] = np.nan
    distinct = np.unique(numbers[~np.isnan(numbers)])
    if not len(distinct):
        return None
    scale = _log(name, numbers, distinct) if _is_log(distinct) else _linear(name, numbers, distinct)
    ticks = _apart(scale.ticks)
    if len(distinct) <= _FEW and len(known) >= 2 * len(distinct) and len(ticks) < len(scale.ticks):
        return _choices(name, values, list(distinct))
    return replace(scale, ticks=ticks)


def _is_log(distinct: NDArray[np.float64]) -> bool:
    if distinct[0] <= 0:
        return False
    if math.log10(distinct[-1] / distinct[0]) > _DECADES:
        return True
    ratios = distinct[1:] / distinct[:-1]
    return 2 <= len(ratios) < _FEW and bool(np.ptp(ratios) < 0.01)  # 4, 8, 16, 32


def _linear(name: str, numbers: NDArray[np.float64], distinct: NDArray[np.float64]) -> Scale:
    low, high = distinct[0], distinct[-1]
    ticks: Sequence[float] | NDArray[np.float64] = distinct
    if len(distinct) > _FEW:
        whole = bool(np.all(distinct == np.round(distinct)))
        ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
    return _numeric(name, "linear", numbers, ticks, low, high)


def _log(name: str, numbers: NDArray[np.float64], distinct: NDArray[np.float64]) -> Scale:
    low, high = math.log10(distinct[0]), math.log10(distinct[-1])
    ticks: Sequence[float] | NDArray[np.float64] = distinct
    if len(distinct) > _FEW:
        decades = range(math.floor(low) - 1, math.ceil(high) + 2)
        nice = [float(f"{factor}e{power}") for power in decades for factor in (1, 2, 5)]
        low = max(math.log10(n) for n in nice if n <= distinct[0])
        high = min(math.log10(n) for n in nice if n >= distinct[-1])
        whole = [float(f"1e{power}") for power in decades if low <= power <= high]
        ticks = whole[:: math.ceil(len(whole) / _FEW)] if len(whole) > 2 else [n for n in nice if low <= math.log10(n)]
    return _numeric(name, "log", np.log10(numbers), np.log10(ticks), low, high, tuple(ticks))


def _numeric(
    name: str,
    kind: str,
    numbers: NDArray[np.float64],
    ticks: Sequence[float] | NDArray[np.float64],
    low: float,
    high: float,
    texts: Sequence[float] | None = None,
) -> Scale:
    def place(value: float) -> float:
        return (value - low) / (high - low) if high > low else 0.5 + 0 * value  # NaN stays NaN

    marks = [(place(at), f"{text:.4g}") for at, text in zip(ticks, ticks if texts is None else texts, strict=True)]
    inside = tuple((at, text) for at, text in marks if -1e-9 <= at <= 1 + 1e-9)
    return Scale(name, kind, np.array([place(n) for n in numbers]), inside)


def _choices(name: str, values: pd.Series, distinct: Sequence[object]) -> Scale:
    """Evenly spaced, a little inside of the axis so that no choice looks like an extreme."""
    keys = values.astype(str).to_list() if isinstance(distinct[0], str) else values.to_list()
    steps = np.linspace(0, 1, 2 * len(distinct) + 1)[1::2]
    where = {key: float(step) for key, step in zip(distinct, steps, strict=True)}
    places = [math.nan if pd.isna(raw) else where[key] for key, raw in zip(keys, values, strict=True)]
    ticks = [(at, label(key if isinstance(key, str) else f"{key:.4g}", 16)) for key, at in where.items()]
    return Scale(name, "choices", np.array(places), tuple(ticks))


def _apart(ticks: Sequence[tuple[float, str]]) -> tuple[tuple[float, str], ...]:
    """The ticks but for those too near to another one; the first and the last stay, wherever they are apart."""
    kept = list(ticks[:1])
    for tick in (*ticks[-1:], *ticks[1:-1]):
        if all(abs(tick[0] - other) >= _ROOM for other, _ in kept):
            kept.append(tick)
    return tuple(sorted(kept))
