"""How much each parameter matters for the score."""

from pathlib import Path

import optuna

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
    for trial in sampled(real_trials(study)):
        value = best_value(trial, metric)
        if value is not None and trial.params:
            scored.add_trial(optuna.create_trial(params=trial.params, distributions=trial.distributions, value=value))
    if len({trial.value for trial in scored.trials}) < _LEAST:
        return {}
    common = set.intersection(*(set(trial.params) for trial in scored.trials))
    return dict(optuna.importance.get_param_importances(scored, params=sorted(common)))
