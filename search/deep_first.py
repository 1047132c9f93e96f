"""Cheap first: which freeze depths the sampler may propose, wider as opening more stages is seen to pay."""

import math
from collections.abc import Sequence
from dataclasses import replace

from optuna.trial import FrozenTrial, TrialState

from search.config import SearchConfig
from search.history import TIE_BREAK, best_value, epochs_of
from search.space import Int, Parameter, Space
from trainable.settings import sign_of

_SAMPLERS = ("tpe", "random")
"""Those that can do with a range that changes from trial to trial; the others would no longer learn from it."""

_SHARE = 4
"""What part of all depths lies open beyond the best one, as a divisor."""


def applies(space: Space, search: SearchConfig) -> bool:
    """Whether the search opens freeze depths little by little."""
    ordered = search.order == "deep_first" and search.sampler.name in _SAMPLERS
    return ordered and any(map(_range, space.parameters))


def opened(space: Space, search: SearchConfig, trials: Sequence[FrozenTrial], images: int) -> Space:
    """The space without the freeze depths that are too far from what has paid so far, where ``search.order`` says so.

    Args:
        trials: all so far.
        images: those by which each trial is valued.
    """
    if not applies(space, search):
        return space
    # With folds, those that were stopped early were valued by fewer images.
    valued = [t for t in trials if t.state == TrialState.COMPLETE or not any("fold" in epoch for epoch in epochs_of(t))]
    return Space(tuple(_opened(parameter, search.metric, valued, images) for parameter in space.parameters))


def as_likely(parameter: Parameter, search: SearchConfig) -> list[int]:
    """The freeze depths that trials may have by this parameter, each as often as it is likely: where they open little
    by little, the deepest quarter of them is taken to be twice as likely as the one before it, and so on."""
    depths = [int(depth) for depth in parameter.domain.values() or ()]
    if not applies(Space((parameter,)), search):
        return depths
    deepest_first = sorted(depths, reverse=True)
    part = math.ceil(len(depths) / _SHARE)
    return [depth for place, depth in enumerate(deepest_first) for _ in range(2 ** (_SHARE - 1 - place // part))]


def _opened(parameter: Parameter, metric: str, trials: Sequence[FrozenTrial], images: int) -> Parameter:
    depths = _range(parameter)
    if depths is None:
        return parameter
    sign = sign_of(metric)
    tried = [trial for trial in trials if parameter.name in trial.params]
    values = [(best_value(trial, metric), trial.params[parameter.name]) for trial in tried]
    found = [(sign * value, depth) for value, depth in values if value is not None]
    # The simplest of those within a standard error of the best (Breiman, Friedman, Olshen, Stone, *Classification and
    # Regression Trees*, 1984, section 3.4.3): for a lead that another draw of images could undo, no stage is opened.
    top = max((value for value, _ in found), default=0.0)
    least = top - _standard_error(top, images) - TIE_BREAK
    best = max((depth for value, depth in found if value >= least), default=depths.high)
    if all(depth <= best for _, depth in found):  # so it is better than none that is deeper
        best = depths.high
    beyond = depths.step * math.ceil(len(depths.values()) / _SHARE)
    return replace(parameter, domain=replace(depths, low=max(depths.low, best - beyond)))


def _standard_error(value: float, images: int) -> float:
    """Of a share of so many images, and about that of scores that weigh classes alike, where these are of a size; 0 of
    a loss, which is negative here, and whose spread is not known."""
    share = min(max(value, 0.0), 1.0)
    return math.sqrt(share * (1 - share) / images)


def _range(parameter: Parameter) -> Int | None:
    """Of freeze depths, where the parameter is one."""
    return parameter.domain if parameter.key == "freeze_depth" and isinstance(parameter.domain, Int) else None
