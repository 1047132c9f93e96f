"""The figures of a report, from a run's tables and its model's predictions: SVG and PNG files, with captions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from search.confusion import draw_confusion
from search.finalists_chart import Finalists, draw_finalists
from search.influence import draw_importances, draw_slices
from search.parallel import draw_parallel
from search.photos import draw_predictions
from search.reliability import Reliability, draw_reliability
from search.style import report_style, save
from search.trends import ceiling, draw_curves, draw_history
from trainable.errors import InputError
from trainable.settings import METRICS

if TYPE_CHECKING:
    from search.results import Run


@dataclass(frozen=True)
class Figure:
    """A figure that has been drawn."""

    name: str
    title: str
    caption: str
    """Plain text: what is shown, and how to read it."""
    svg: Path
    png: Path


_TITLES = {
    "predictions": "What the model sees",
    "confusion": "Which classes it confuses",
    "reliability": "How far its confidence can be trusted",
    "curves": "Learning curves",
    "history": "How the search went",
    "finalists": "The finalists",
    "parallel": "Configurations and their scores",
    "importances": "Which parameters matter",
    "slices": "One parameter at a time",
}

_OF_SCORES = ("history", "parallel", "slices")


def draw_figures(
    run: "Run",
    predictions: pd.DataFrame,
    classes: Sequence[str],
    importances: Mapping[str, float],
    chosen: int,
    folder: Path,
    *,
    reliability: Reliability | None = None,
    finalists: Finalists | None = None,
) -> list[Figure]:
    """Draw every figure that there is something to draw for.

    Args:
        predictions: of the retrained model, a row a validation image: path, class, predicted (names of classes),
            confidence (0-1, of the predicted class), correct.
        importances: share a parameter; may be empty.
        chosen: the number of the retrained trial.
        folder: where NAME.svg and NAME.png are written.
        reliability: the model's confidences, before and after temperature scaling.
        finalists: the scores of the configurations that were trained again.

    Returns:
        The figures in the order of presentation.
    """
    metric = run.metric
    trials, note = _scored(run.trials, metric)
    with report_style():
        drawn = {
            "predictions": draw_predictions(predictions) if len(predictions) else None,
            "confusion": draw_confusion(predictions, classes) if len(predictions) else None,
            "reliability": draw_reliability(reliability) if reliability else None,
            "curves": draw_curves(trials, run.curves, metric, chosen) if len(run.curves) else None,
            "history": draw_history(trials, metric, chosen) if len(trials) else None,
            "finalists": draw_finalists(finalists) if finalists else None,
            "parallel": draw_parallel(trials, run.parameters, metric, chosen),
            "importances": draw_importances(importances, run.parameters),
            "slices": draw_slices(trials, run.parameters, metric, chosen),
        }
        return [
            Figure(name, _TITLES[name], made[1] + (note if name in _OF_SCORES else ""), *save(made[0], folder, name))
            for name, made in drawn.items()
            if made
        ]


def draw_trials(run: "Run", name: str) -> Canvas:
    """One of the figures of a run's trials, the best complete one marked: curves, history, parallel or slices.

    Raises:
        InputError: no trial is complete, or there is nothing to draw.
    """
    trials, _ = _scored(run.trials, run.metric)
    with report_style():
        drawn = {
            "curves": lambda: draw_curves(trials, run.curves, run.metric, run.best),
            "history": lambda: draw_history(trials, run.metric, run.best),
            "parallel": lambda: draw_parallel(trials, run.parameters, run.metric, run.best),
            "slices": lambda: draw_slices(trials, run.parameters, run.metric, run.best),
        }[name]()
    if drawn is None:
        raise InputError(f"there must be trials that differ, for a figure of {name}; {run.folder} has none")
    return drawn[0]


def _scored(trials: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, str]:
    """With a column ``score``: the metric at the trial's best epoch, whether complete or stopped early, losses beyond
    the end of their axis moved there; and what captions must say of that.

    The column ``value`` is the study's: of trials stopped early the last epoch's, and moved a little by the loss.
    """
    score = pd.to_numeric(trials[metric] if metric in trials else trials["value"], errors="coerce").astype(float)
    score = score.where(np.isfinite(score))
    most = ceiling(score) if METRICS[metric] == "minimize" else None
    beyond = int((score > most).sum()) if most else 0
    note = f" Losses above {most:.3g}, those of {beyond} trials, are drawn there." if beyond else ""
    return trials.assign(score=score.clip(upper=most)).sort_values("trial", ignore_index=True), note
