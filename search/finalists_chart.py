"""The figure that shows the finalists: configurations that were trained from several seeds, or on several folds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from search.style import CHOSEN, INK, PLAIN, SMALL, WIDTH, label, metric_label, new_canvas
from trainable.settings import METRICS


@dataclass(frozen=True)
class Finalists:
    """Scores of configurations, several of each."""

    scores: pd.DataFrame
    """A row a training: trial, name (of the configuration), score."""
    winner: int
    """The trial that was chosen."""
    tied: Sequence[int]
    """Trials within one standard error of the best mean."""
    metric: str
    """What ``score`` is, of ``METRICS``."""
    unit: str = "seed"
    """In what the trainings of one configuration differ: seed, or fold."""


def draw_finalists(finalists: Finalists) -> tuple[Canvas, str] | None:
    """A row a configuration, the best mean on top: a dot a seed or fold, the mean, and one standard error to both
    sides; None where nothing was trained.

    Returns the figure and its caption.
    """
    scores = finalists.scores.dropna(subset=["score"])
    if scores.empty:
        return None
    rows = scores.groupby("trial").agg(name=("name", "first"), mean=("score", "mean"), error=("score", "sem"))
    rows = rows.sort_values("mean", ascending=METRICS[finalists.metric] == "maximize")  # the last is drawn on top
    canvas = new_canvas(WIDTH, 1.15 + 0.56 * len(rows))
    ax = canvas.subplots()
    for place, (trial, row) in enumerate(rows.iterrows()):
        _draw_row(ax, place, scores.loc[scores["trial"] == trial, "score"], row, trial == finalists.winner)
    ax.set_yticks(range(len(rows)), [_name(trial, row["name"]) for trial, row in rows.iterrows()])
    for text, trial in zip(ax.get_yticklabels(), rows.index, strict=True):
        text.set_fontsize(SMALL)
        text.set_fontweight("bold" if trial == finalists.winner else "normal")
    ax.set(xlabel=metric_label(finalists.metric), ylim=(-0.6, len(rows) - 0.4))
    ax.margins(x=0.06)
    ax.tick_params("y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")
    _write_means(ax, rows, finalists)
    _add_legend(ax, finalists.unit, bool(rows["error"].notna().any()))
    return canvas, _caption(rows, scores, finalists)


def _draw_row(ax: Axes, place: int, scores: pd.Series, row: pd.Series, winner: bool) -> None:
    colour = CHOSEN if winner else PLAIN
    # Trainings that score alike would hide each other: they stand in a column, in the order of the table.
    above = scores.groupby(scores.round(6)).cumcount()
    ax.plot(scores, place + 0.2 + 0.1 * above.clip(upper=2), "o", ms=5, mfc="none", mec=colour, mew=1.1)
    if np.isfinite(row["error"]):
        ax.errorbar(row["mean"], place, xerr=row["error"], color=colour, lw=2, capsize=4, capthick=2)
    look: dict[str, Any] = {"marker": "*", "ms": 16} if winner else {"marker": "D", "ms": 7}
    ax.plot(row["mean"], place, color=colour, mec="white", ls="", zorder=3, **look)


def _write_means(ax: Axes, rows: pd.DataFrame, finalists: Finalists) -> None:
    """On the right of the axes, in words: mean, error, and how the row stands to the others."""
    for place, (trial, row) in enumerate(rows.iterrows()):
        error = f" ± {row['error']:.4f}" if np.isfinite(row["error"]) else ""
        standing = ", chosen" if trial == finalists.winner else ", tied" if trial in finalists.tied else ""
        ax.annotate(
            f"{row['mean']:.4f}{error}{standing}",
            (1.01, place),
            xycoords=("axes fraction", "data"),
            va="center",
            size=9,
            color=INK,
            weight="bold" if trial == finalists.winner else "normal",
        )


def _add_legend(ax: Axes, unit: str, errors: bool) -> None:
    ax.plot([], [], "o", ms=5, mfc="none", mec=PLAIN, mew=1.1, label=f"a {unit}")
    ax.plot([], [], "D", ms=7, color=PLAIN, mec="white", label="mean" + (" ± one standard error" if errors else ""))
    ax.plot([], [], "*", ms=14, color=CHOSEN, mec="white", ls="", label="the chosen one's")
    ax.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, handletextpad=0.5, columnspacing=1.6)


def _name(trial: Any, name: Any) -> str:
    own = f"trial {trial}"
    return own if pd.isna(name) or str(name) in ("", own) else f"{own}\n{label(name, 44)}"


def _caption(rows: pd.DataFrame, scores: pd.DataFrame, finalists: Finalists) -> str:
    counts = scores.groupby("trial").size()
    how = "trained from" if finalists.unit == "seed" else "scored on"
    each = f"{counts.max()} {finalists.unit}s" if counts.max() > 1 else f"one {finalists.unit}"
    better = "lower" if METRICS[finalists.metric] == "minimize" else "higher"
    which = f"{len(rows)} configurations, each" if len(rows) > 1 else "One configuration,"
    fewer = ", or fewer where it could not win any more" if counts.min() < counts.max() else ""
    text = f"{which} {how} {each}{fewer}; {better} is better."
    tied = [str(trial) for trial in sorted(finalists.tied) if trial != finalists.winner]
    if not tied:
        return text
    which = f"trial {tied[0]} lies" if len(tied) == 1 else f"trials {', '.join(tied)} lie"
    return f"{text} Tied: {which} within one standard error of the best mean, so that chance may have ranked them."
