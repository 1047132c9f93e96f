"""How much each parameter matters for the score."""

from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import FrozenTrial

from search.config import Config
from search.folder import study_address
from search.history import best_value, real_trials, sampled
from search.storage import open_study

_LEAST = 4


def parameter_importances(run: Path, config: Config) -> dict[str, float]:
    """`importances` of a run's study."""
    metric = config.search.metric
    return importances(open_study(*study_address(run, config), metric, resume=True), metric)


def importances(study: optuna.Study, metric: str) -> dict[str, float]:
    """PED-ANOVA importances (Watanabe, Bansal, Hutter, *IJCAI* 2023) over the trials that the sampler chose, each with
    its best epoch's value, pruned ones too; empty where there are too few to say anything.

    A trial that was asked for by name can lie far from all others, and would pass for the effect of where it lies.
    Parameters that some trials do not have are left out: theirs would be a share of the differences among fewer trials.
    """
    scored = optuna.create_study(direction=study.direction)
    trials = sampled(real_trials(study))
    ranges = _widest(trials)
    for trial in trials:
        value = best_value(trial, metric)
        if value is not None and trial.params:
            distributions = {name: ranges[name] for name in trial.params}
            scored.add_trial(optuna.create_trial(params=trial.params, distributions=distributions, value=value))
    if len({trial.value for trial in scored.trials}) < _LEAST:
        return {}
    common = set.intersection(*(set(trial.params) for trial in scored.trials))
    return dict(optuna.importance.get_param_importances(scored, params=sorted(common)))


def _widest(trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """The values that each parameter could take in the end; runs of earlier versions have ranges that grew."""
    found: dict[str, BaseDistribution] = {}
    for trial in trials:
        for name, values in trial.distributions.items():
            known = found.setdefault(name, values)
            if isinstance(values, IntDistribution) and isinstance(known, IntDistribution) and values.low < known.low:
                found[name] = values
    return found
