"""What the trials of an Optuna study hold: their epochs, and the value by which they are ordered."""

from collections.abc import Iterable, Mapping

import optuna
from optuna.trial import FrozenTrial, TrialState

from trainable.settings import across_folds, best_epoch, sign_of

TIE_BREAK = 1e-9
"""How much a loss can move a value: enough to order equal accuracies, too little to reorder different ones."""

Metrics = Mapping[str, float]
"""An epoch's, with ``epoch``, and ``fold`` if any, both counted from 1."""


def real_trials(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    """The trials that are or were trained; of the given states, or of all. Not those that only wait in the queue,
    nor proposals that were refused as duplicates."""
    trials = study.get_trials(deepcopy=False, states=states or None)
    return [t for t in trials if t.state != TrialState.WAITING and "duplicate_of" not in t.user_attrs]


def sampled(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Those that the sampler chose, not those that were asked for by name."""
    return [trial for trial in trials if "first" not in trial.user_attrs]


def epochs_of(trial: FrozenTrial) -> list[dict[str, float]]:
    """The metrics of each epoch of a trial, in order; with folds, fold by fold."""
    return [value for name, value in sorted(trial.user_attrs.items()) if name.startswith("epoch:")]


def best_value(trial: FrozenTrial, metric: str) -> float | None:
    """The value of a trial's best epoch so far; None where it has none."""
    history = epochs_of(trial)
    return ranked_value(across_folds(history)[best_epoch(history, metric) - 1], metric) if history else None


def ranked_value(metrics: Metrics, metric: str) -> float:
    """The metric, made worse by up to `TIE_BREAK` the higher the loss is: so equal accuracies have an order."""
    sign = sign_of(metric)
    loss = metrics["val_loss"]
    return metrics[metric] - sign * TIE_BREAK * (loss / (1 + loss))
