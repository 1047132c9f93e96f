"""The figures that show what the parameters do: parallel coordinates, importances, and a slice a parameter."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from search.scale import Scale, make_scale
from search.style import CHOSEN, FADED, INK, PLAIN, SCALE, SMALL, WIDTH, label, metric_label, new_canvas
from search.trends import widen_scale
from trainable.settings import METRICS

Places = NDArray[np.float64]

_UPRIGHT = 7
"""Up to so many parameters, their names stand side by side in one line."""

_UNUSED = -0.13
"""Where on an axis from 0 to 1 a trial stands that did not have the parameter."""


def draw_parallel(
    trials: pd.DataFrame, parameters: Sequence[str], metric: str, chosen: int
) -> tuple[Canvas, str] | None:
    """A line a trial through its parameters and its score (column ``score``); None where there is nothing to draw.

    Returns the figure and its caption.
    """
    scored = trials[trials["score"].notna()].reset_index(drop=True)
    scales = [scale for name in parameters if (scale := make_scale(name, scored[name]))]
    last = make_scale(metric, scored["score"])
    if not scales or not last:
        return None
    slanted = len(scales) > _UPRIGHT
    canvas = new_canvas(WIDTH, 5.2 if slanted else 4.8)
    ax = canvas.subplots()
    lines = np.column_stack([scale.places for scale in (*scales, last)])
    goodness, shade = _goodness(scored, last, METRICS[metric] == "maximize")
    for row in np.argsort(goodness, kind="stable"):
        complete = scored["state"][row] == "COMPLETE"
        _draw_line(
            ax, lines[row], SCALE(goodness[row]) if complete else FADED, complete, scored["trial"][row] == chosen
        )
    for at, scale in enumerate((*scales, last)):
        _draw_axis(ax, at, scale, 900 / (len(scales) + 1), scale is last)
    edges = np.linspace(0, 1, 65)
    strip = [[(len(scales), low), (len(scales), min(high + 0.01, 1))] for low, high in pairwise(edges)]
    ax.add_collection(LineCollection(strip, colors=SCALE(shade(edges[:-1])), linewidths=7, zorder=4))
    lowest = _UNUSED - 0.09 if np.isnan(lines).any() else -0.06
    ax.set(xlim=(-0.45, len(scales) + 0.25), ylim=(lowest, 1.26 if slanted else 1.13))
    ax.axis("off")
    return canvas, _parallel_caption(scored, lines, chosen)


def draw_importances(importances: Mapping[str, float]) -> tuple[Canvas, str] | None:
    """A bar a parameter, the most important on top; None where there are none."""
    ranked = sorted((float(share), name) for name, share in importances.items() if math.isfinite(share))
    if not ranked:
        return None
    canvas = new_canvas(WIDTH * 0.75, 0.75 + 0.36 * len(ranked))
    ax = canvas.subplots()
    shares, places = [share for share, _ in ranked], range(len(ranked))
    ax.barh(places, shares, height=0.62, color=PLAIN)
    ax.set_yticks(places, [label(name, 28) for _, name in ranked])
    for place, share in zip(places, shares, strict=True):
        ax.annotate(
            f"{share:.0%}" if share >= 0.005 else "<1%",
            (share, place),
            (5, 0),
            textcoords="offset points",
            va="center",
            size=9,
        )
    ax.set(xlim=(0, max(*shares, 1e-9) * 1.12), xticks=[], xlabel="share of the differences between trials")
    ax.tick_params("y", length=0)
    ax.spines["bottom"].set_visible(False)
    name = label(ranked[-1][1])
    return canvas, (
        f"How much of the differences between trials each parameter explains; {name} the most. An estimate from few "
        "trials is a hint, no more."
    )


def draw_slices(trials: pd.DataFrame, parameters: Sequence[str], metric: str, chosen: int) -> tuple[Canvas, str] | None:
    """A panel a parameter: the trials' scores against it; arguments and result as of `draw_parallel`."""
    scored = trials[trials["score"].notna()].reset_index(drop=True)
    scales = [scale for name in parameters if (scale := make_scale(name, scored[name]))]
    if not scales:
        return None
    columns = min(len(scales), 3 if len(scales) in (3, 5, 6, 9) else 4)
    rows = math.ceil(len(scales) / columns)
    canvas = new_canvas(WIDTH if columns > 2 else 2.0 + 3.0 * columns, 0.35 + 2.75 * rows)
    grid = canvas.subplots(rows, columns, sharey=True, squeeze=False)
    for ax, scale in zip(grid.flat, scales, strict=False):
        _draw_slice(ax, scale, scored, chosen)
    for ax in list(grid.flat)[len(scales) :]:
        ax.axis("off")
    for ax in grid[:, 0]:
        ax.set_ylabel(metric_label(metric))
    widen_scale(grid[0, 0], scored["score"], metric)
    handles, names = grid[0, 0].get_legend_handles_labels()
    canvas.legend(handles, names, loc="outside upper left", ncols=3)
    return canvas, (
        f"Each trial's {metric_label(metric)} against one parameter at a time. What the sampler liked it tried more "
        "often, so look at how high the best points of a region lie, not at how many there are."
    )


def _draw_line(ax: Axes, places: Places, colour: Any, complete: bool, chosen: bool) -> None:
    """One trial: straight from axis to axis, below it where a parameter was not used."""
    heights = np.where(np.isnan(places), _UNUSED, places)
    width = 3.4 if chosen else 1.6 if complete else 0.8
    above = 5 if chosen else 3 if complete else 1
    ax.plot(heights, color=colour, lw=width, alpha=1.0 if complete else 0.6, zorder=above, solid_joinstyle="round")
    if chosen:
        star: dict[str, Any] = {"ms": 15, "color": CHOSEN, "mec": "white", "zorder": 8, "clip_on": False}
        ax.plot(len(places) - 1, heights[-1], "*", **star)


def _draw_axis(ax: Axes, at: float, scale: Scale, pixels: float, last: bool) -> None:
    ax.plot([at, at], [0, 1], color="#777777", lw=1, zorder=4)
    most = max(int(pixels / 7), 6)
    title: dict[str, Any] = {"ha": "center"} if pixels >= 900 / (_UPRIGHT + 1) else {"ha": "left", "rotation": 25}
    ax.text(at, 1.06, label(scale.name, 20), va="bottom", rotation_mode="anchor", size=9.5, weight="bold", **title)
    if np.isnan(scale.places).any():
        _write_tick(ax, at - 0.025, _UNUSED, "not used", most)
    for place, text in scale.ticks:
        ax.plot([at - 0.012, at + 0.012], [place, place], color="#777777", lw=1, zorder=4)
        _write_tick(ax, at + 0.04 if last else at - 0.025, place, text, most, "left" if last else "right")


def _write_tick(ax: Axes, x: float, y: float, text: str, most: int, side: str = "right") -> None:
    behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.78, "pad": 0.8}
    ax.text(x, y, label(text, most), ha=side, va="center", size=SMALL, zorder=6, bbox=behind)


def _goodness(scored: pd.DataFrame, last: Scale, upwards: bool) -> tuple[Places, Callable[[Places], Places]]:
    """How dark each trial is drawn, and the same of any place on the score's axis: all shades for the complete trials,
    which may lie close together far above those that were stopped early."""
    complete = last.places[(scored["state"] == "COMPLETE").to_numpy()]
    low, high = (complete.min(), complete.max()) if len(complete) else (0.0, 1.0)

    def shade(places: Places) -> Places:
        share = np.clip((places - low) / max(high - low, 1e-9), 0, 1) if high > low else (places >= low).astype(float)
        return 0.12 + 0.88 * (share if upwards else 1 - share)

    return shade(last.places), shade


def _parallel_caption(scored: pd.DataFrame, lines: Places, chosen: int) -> str:
    text = "Each line is a trial, from its parameters on the left to its score on the right; the darker, the better."
    if (scored["state"] != "COMPLETE").any():
        text += " Grey, thin: stopped early."
    if (scored["trial"] == chosen).any():
        text += f" Thick, with the star: trial {chosen}, the chosen one."
    if np.isnan(lines).any():
        text += " “Not used”: the trial's other settings left no place for that parameter."
    return text


def _draw_slice(ax: Axes, scale: Scale, scored: pd.DataFrame, chosen: int) -> None:
    # The golden ratio's multiples spread the trials of one choice evenly, and the same way every time.
    spread = ((scored["trial"] * 0.6180339887) % 1 - 0.5).to_numpy()
    x = scale.places + (spread * 0.5 / len(scale.ticks) if scale.kind == "choices" else 0)
    complete = (scored["state"] == "COMPLETE").to_numpy()
    own = (scored["trial"] == chosen).to_numpy()
    y = scored["score"].to_numpy()
    ax.plot(x[~complete], y[~complete], "o", ms=4.5, mfc="white", mec="#9A9A9A", label="stopped early")
    ax.plot(x[complete & ~own], y[complete & ~own], "o", ms=6, color=PLAIN, mec="white", mew=0.5, label="complete")
    ax.plot(x[own], y[own], "*", ms=14, color=CHOSEN, mec="white", label="chosen", ls="", zorder=4)
    ax.set_xlim(-0.07, 1.07)
    ax.set_xticks([place for place, _ in scale.ticks], [text for _, text in scale.ticks])
    if sum(len(text) + 2 for _, text in scale.ticks) > 34:
        ax.tick_params("x", rotation=30)
        for text in ax.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    ax.set_title(label(scale.name, 26), color=INK, weight="bold", size=9.5)
    ax.grid(axis="y")
