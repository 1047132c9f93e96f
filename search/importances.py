"""How much each parameter matters for the score."""

from pathlib import Path

import optuna

from search.config import Config
from search.folder import study_address
from search.history import best_value, real_trials
from search.storage import open_study

_LEAST = 4


def parameter_importances(run: Path, config: Config) -> dict[str, float]:
    """PED-ANOVA importances (Watanabe, Bansal, Hutter, *IJCAI* 2023) over all trials, each with its best epoch's value,
    pruned ones too; empty where there are too few to say anything."""
    study = open_study(*study_address(run, config), config.search.metric, resume=True)
    scored = optuna.create_study(direction=study.direction)
    for trial in real_trials(study):
        value = best_value(trial, config.search.metric)
        if value is not None and trial.params:
            scored.add_trial(optuna.create_trial(params=trial.params, distributions=trial.distributions, value=value))
    if len({trial.value for trial in scored.trials}) < _LEAST:
        return {}
    return dict(optuna.importance.get_param_importances(scored))
