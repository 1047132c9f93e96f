"""The figures that show trials over time: the learning curves, and the search's history."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from search.style import BAD, CHOSEN, FADED, INK, PLAIN, WIDTH, label, legend_above, metric_label, new_canvas
from trainable.settings import METRICS

_NAMED = 4
"""First trials that get a mark and a name each; more of them share one."""


def draw_curves(trials: pd.DataFrame, curves: pd.DataFrame, metric: str, chosen: int) -> tuple[Canvas, str]:
    """Learning curves of all trials, and the chosen one's losses.

    Args:
        trials: ``trials.csv``.
        curves: ``curves.csv``, not empty.

    Returns:
        The figure and its caption.
    """
    canvas = new_canvas(WIDTH, 4.6, gap=0.06)
    left, right = canvas.subplots(1, 2, width_ratios=[1.75, 1])
    complete = set(trials.loc[trials["state"] == "COMPLETE", "trial"])
    others = curves[curves["trial"] != chosen].sort_values(["trial", "epoch"])
    _draw_lines(left, others[others["trial"].isin(complete)], metric, "complete")
    _draw_lines(left, others[~others["trial"].isin(complete)], metric, "stopped early")
    own = curves[curves["trial"] == chosen].sort_values("epoch")
    if len(own):
        best = _mark_best(left, own, trials, metric, chosen)
        _draw_losses(right, own, best)
    else:
        right.axis("off")
    _finish_epochs(left, metric_label(metric), curves["epoch"].max())
    cut = metric == "val_loss" and _cut(left, curves[metric])
    legend_above(left, 2)
    return canvas, _curves_caption(trials, own, metric, chosen) + (
        " Losses that diverged leave at the top." if cut else ""
    )


def draw_history(trials: pd.DataFrame, metric: str, chosen: int) -> tuple[Canvas, str]:
    """Each trial's score (column ``score``) by number, and the best so far; returned as above."""
    canvas = new_canvas(WIDTH, 4.2)
    ax = canvas.subplots()
    _draw_scores(ax, trials, METRICS[metric] == "maximize")
    _mark_first(ax, trials, chosen)
    _mark_chosen(ax, trials, chosen)
    first, last = trials["trial"].min(), trials["trial"].max()
    edge = max(0.7, 0.012 * (last - first))
    ax.set(xlabel="trial", ylabel=metric_label(metric), xlim=(first - edge, last + edge))
    ax.xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
    if trials["score"].notna().any():
        ax.grid(axis="y")
        ax.margins(y=0.12)
    else:
        ax.set_yticks([])
        ax.text(0.5, 0.5, "No trial reported an epoch.", transform=ax.transAxes, ha="center", va="center", size=12)
    legend_above(ax)
    return canvas, _history_caption(trials, metric)


def ceiling(losses: pd.Series) -> float | None:
    """Where an axis of losses ends: above, one that diverged would make a flat line of all others. None: nowhere."""
    known = losses[np.isfinite(losses)]
    middle = float(known.median()) if len(known) else 0.0
    return 3 * middle if len(known) and known.max() > 10 * middle > 0 else None


def _cut(ax: Axes, losses: pd.Series) -> bool:
    """Ends an axis of losses at their ceiling; whether there was need to."""
    top = ceiling(losses)
    if top is not None:
        low = float(losses.min())
        ax.set_ylim(low - 0.05 * (top - low), top)
    return top is not None


def _draw_lines(ax: Axes, curves: pd.DataFrame, metric: str, name: str) -> None:
    """The curves of trials that ended alike; a dot where they were stopped, or where one epoch is no line."""
    look: dict[str, Any] = {"color": PLAIN, "zorder": 2} if name == "complete" else {"color": FADED, "zorder": 1}
    look |= {"lw": 1.2 if curves["trial"].nunique() <= 40 else 0.8, "alpha": 0.85}
    for at, (_, curve) in enumerate(curves.groupby("trial")):
        ax.plot(curve["epoch"], curve[metric], label="" if at else name, **look)
        if name != "complete" or len(curve) == 1:
            ax.plot(curve["epoch"].iloc[-1], curve[metric].iloc[-1], "o", ms=3.2, **{**look, "lw": 0})


def _draw_scores(ax: Axes, trials: pd.DataFrame, upwards: bool) -> None:
    state, scored = trials["state"], trials["score"].notna()
    complete, other = trials[(state == "COMPLETE") & scored], trials[~state.isin(["COMPLETE", "FAIL"]) & scored]
    failed = trials[state == "FAIL"]
    if len(other):
        ax.plot(other["trial"], other["score"], "o", ms=5, mfc="white", mec="#9A9A9A", label="stopped early")
    if len(complete):
        ax.plot(complete["trial"], complete["score"], "o", ms=6, color=PLAIN, label="complete")
        so_far = complete["score"].cummax() if upwards else complete["score"].cummin()
        steps = [*so_far, so_far.iloc[-1]]
        ends = [*complete["trial"], trials["trial"].max() + 0.7]
        ax.plot(ends, steps, color=PLAIN, lw=1.5, drawstyle="steps-post", zorder=1, label="best so far")
    if len(failed):
        at_bottom: dict[str, Any] = {"transform": ax.get_xaxis_transform(), "clip_on": False, "ls": ""}
        ax.plot(failed["trial"], [0.02] * len(failed), "x", ms=6, mew=1.5, color=BAD, label="failed", **at_bottom)


def _mark_best(ax: Axes, own: pd.DataFrame, trials: pd.DataFrame, metric: str, chosen: int) -> int:
    """Draws the chosen trial's curve with a star at its best epoch, which it returns."""
    known = trials.loc[trials["trial"] == chosen, "best_epoch"].dropna()
    best = int(known.iloc[0] if len(known) else own["epoch"].iloc[-1])
    value = own.loc[own["epoch"] == best, metric].iloc[0]
    ax.plot(own["epoch"], own[metric], color=CHOSEN, lw=2.6, zorder=4, label=f"trial {chosen}, chosen")
    ax.plot(
        best,
        value,
        "*",
        ms=15,
        color=CHOSEN,
        mec="white",
        zorder=5,
        ls="",
        label=f"its best epoch, {best}: {value:.3f}",
    )
    return best


def _draw_losses(ax: Axes, own: pd.DataFrame, best: int) -> None:
    dot: dict[str, Any] = {"marker": "o", "ms": 4} if len(own) < 4 else {}
    ax.plot(own["epoch"], own["train_loss"], color=INK, lw=1.8, ls=(0, (4, 1.5)), label="training", **dot)
    ax.plot(own["epoch"], own["val_loss"], color=CHOSEN, lw=1.8, label="validation", **dot)
    ax.axvline(best, color="#999999", lw=1, ls=":")
    _finish_epochs(ax, "loss of the chosen trial", own["epoch"].max())
    _cut(ax, pd.concat([own["train_loss"], own["val_loss"]]))
    legend_above(ax)


def _finish_epochs(ax: Axes, name: str, last: float) -> None:
    ax.set(xlabel="epoch", ylabel=name)
    ax.set_xlim(1 - 0.03 * last, last * 1.03)
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    ax.grid(axis="y")


def _mark_first(ax: Axes, trials: pd.DataFrame, chosen: int) -> None:
    if "first" not in trials:
        return
    first = trials[trials["first"].notna() & trials["score"].notna()]
    named = len(first) <= _NAMED
    groups = [(label(row["first"], 44), first[first["trial"] == row["trial"]]) for _, row in first.iterrows()]
    if not named:
        groups = [("given configurations", first)]
    for (name, rows), mark in zip(groups, itertools.cycle("DsP^"), strict=False):
        look: dict[str, Any] = {"marker": mark, "mfc": "#F5C04A", "mec": INK, "ls": "", "zorder": 4}
        ax.plot([], [], ms=9, label=name, **look)
        for number, score in zip(rows["trial"], rows["score"], strict=True):
            ax.plot(number, score, ms=20 if number == chosen else 9, **look)  # to be seen behind the chosen one's star


def _mark_chosen(ax: Axes, trials: pd.DataFrame, chosen: int) -> None:
    row = trials[(trials["trial"] == chosen) & trials["score"].notna()]
    if len(row):
        score = row["score"].iloc[0]
        ax.plot(chosen, score, "*", ms=15, color=CHOSEN, mec="white", ls="", zorder=5, label=f"chosen: {score:.3f}")


def _curves_caption(trials: pd.DataFrame, own: pd.DataFrame, metric: str, chosen: int) -> str:
    stopped = int((trials["state"] == "PRUNED").sum())
    text = f"Left: {metric_label(metric)} after each epoch, a line a trial"
    text += f"; {stopped} of {len(trials)} were stopped early, each at its dot." if stopped else "."
    if len(own):
        text += (
            f" Right: the losses of trial {chosen}; where training goes on falling and validation rises, the model "
            "learns its training images by heart."
        )
    return text


def _history_caption(trials: pd.DataFrame, metric: str) -> str:
    counts = trials["state"].value_counts()
    words = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "interrupted"}
    told = ", ".join(f"{counts[state]} {word}" for state, word in words.items() if state in counts)
    better = "higher" if METRICS[metric] == "maximize" else "lower"
    count = f"{len(trials)} trials" if len(trials) > 1 else "One trial"
    return f"{count}: {told}. Each stands at its best epoch's {metric_label(metric)}; {better} is better."
