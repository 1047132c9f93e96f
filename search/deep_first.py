"""Cheap first: which freeze depths the sampler may propose, wider as opening more stages is seen to pay."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from search.config import SearchConfig
from search.history import TIE_BREAK, best_value, epochs_of
from search.space import Int, Parameter, Space
from trainable.settings import sign_of

_SAMPLERS = ("tpe", "random")
"""Those that choose well among what is open when asked for one parameter alone; the others would choose at random."""

_SHARE = 4
"""What part of all depths lies open beyond the best one, as a divisor."""


def applies(space: Space, search: SearchConfig) -> bool:
    """Whether the search opens freeze depths little by little."""
    ordered = search.order == "deep_first" and search.sampler.name in _SAMPLERS
    return ordered and any(map(_range, space.parameters))


def shallowest_open(space: Space, search: SearchConfig, trials: Sequence[FrozenTrial], images: int) -> dict[str, int]:
    """Of each parameter that opens little by little, the shallowest freeze depth that may be proposed now.

    Args:
        trials: all so far.
        images: those by which each trial is valued.
    """
    if not applies(space, search):
        return {}
    # With folds, those that were stopped early were valued by fewer images.
    valued = [t for t in trials if t.state == TrialState.COMPLETE or not any("fold" in epoch for epoch in epochs_of(t))]
    ranges = {parameter.name: _range(parameter) for parameter in space.parameters}
    return {
        name: _shallowest(name, depths, search.metric, valued, images)
        for name, depths in ranges.items()
        if depths is not None
    }


class DeepFirst(optuna.samplers.BaseSampler):
    """Another sampler, kept to the freeze depths that are open. The study has the whole ranges all along: samplers take
    a parameter's range from the first trial that ended.

    Args:
        shallowest: of each parameter that opens little by little, the shallowest depth that is open.
    """

    def __init__(self, sampler: optuna.samplers.BaseSampler, shallowest: Mapping[str, int]) -> None:
        self._sampler, self._shallowest = sampler, shallowest

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """What the sampler proposes, without depths that are not open: those are asked for one by one."""
        proposed = self._sampler.sample_relative(study, trial, search_space)
        return {name: value for name, value in proposed.items() if value >= self._shallowest.get(name, value)}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The sampler's choice from what is open."""
        among = param_distribution
        if isinstance(among, IntDistribution) and param_name in self._shallowest:
            among = IntDistribution(self._shallowest[param_name], among.high, among.log, among.step)
        return self._sampler.sample_independent(study, trial, param_name, among)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._sampler.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)


def as_likely(parameter: Parameter, search: SearchConfig) -> list[int]:
    """The freeze depths that trials may have by this parameter, each as often as it is likely: where they open little
    by little, the deepest quarter of them is taken to be twice as likely as the one before it, and so on."""
    depths = [int(depth) for depth in parameter.domain.values() or ()]
    if not applies(Space((parameter,)), search):
        return depths
    deepest_first = sorted(depths, reverse=True)
    part = math.ceil(len(depths) / _SHARE)
    return [depth for place, depth in enumerate(deepest_first) for _ in range(2 ** (_SHARE - 1 - place // part))]


def _shallowest(name: str, depths: Int, metric: str, trials: Sequence[FrozenTrial], images: int) -> int:
    sign = sign_of(metric)
    values = [(best_value(trial, metric), trial.params[name]) for trial in trials if name in trial.params]
    found = [(sign * value, depth) for value, depth in values if value is not None]
    # The simplest of those within a standard error of the best (Breiman, Friedman, Olshen, Stone, *Classification and
    # Regression Trees*, 1984, section 3.4.3): for a lead that another draw of images could undo, no stage is opened.
    top = max((value for value, _ in found), default=0.0)
    least = top - _standard_error(top, images) - TIE_BREAK
    best = max((depth for value, depth in found if value >= least), default=depths.high)
    if all(depth <= best for _, depth in found):  # so it is better than none that is deeper
        best = depths.high
    beyond = depths.step * math.ceil(len(depths.values()) / _SHARE)
    return max(depths.low, best - beyond)


def _standard_error(value: float, images: int) -> float:
    """Of a share of so many images, and about that of scores that weigh classes alike, where these are of a size; 0 of
    a loss, which is negative here, and whose spread is not known."""
    share = min(max(value, 0.0), 1.0)
    return math.sqrt(share * (1 - share) / images)


def _range(parameter: Parameter) -> Int | None:
    """Of freeze depths, where the parameter is one."""
    return parameter.domain if parameter.key == "freeze_depth" and isinstance(parameter.domain, Int) else None
