"""The figure that shows whole configurations: parallel coordinates of their parameters and scores."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from search.scale import Scale, make_scale
from search.style import CHOSEN, FADED, SCALE, SMALL, WIDTH, label, new_canvas
from trainable.settings import METRICS

Places = NDArray[np.float64]

_UPRIGHT = 7
"""Up to so many parameters, their names stand side by side in one line."""

_MANY = 40
"""Beyond so many complete trials, their lines are thin."""

_UNUSED = -0.13
"""Where on an axis from 0 to 1 a trial stands that did not have the parameter."""


def draw_parallel(
    trials: pd.DataFrame, parameters: Sequence[str], metric: str, chosen: int
) -> tuple[Canvas, str] | None:
    """A line a trial through its parameters and its score (column ``score``); None where fewer than two have one.

    Returns the figure and its caption.
    """
    scored = trials[trials["score"].notna()].reset_index(drop=True)
    scales = [scale for name in parameters if (scale := make_scale(name, scored[name]))]
    last = make_scale(metric, scored["score"])
    if not scales or not last or len(scored) < 2:
        return None
    lines = np.column_stack([scale.places for scale in (*scales, last)])
    complete = (scored["state"] == "COMPLETE").to_numpy()
    shade = _shades(last.places[complete], METRICS[metric] == "maximize")
    darkness = shade(last.places)
    slanted = len(scales) > _UPRIGHT
    canvas = new_canvas(WIDTH, 5.2 if slanted else 4.8)
    ax = canvas.subplots()
    for row in np.argsort(darkness, kind="stable"):
        shown = darkness[row] if complete[row] else None
        _draw_line(ax, lines[row], shown, scored["trial"][row] == chosen, 1.6 if complete.sum() <= _MANY else 0.8)
    strip = ((len(scales) + 0.7) / 200) * np.array([-1, 1]) + len(scales)
    bands = np.linspace(0, 1, 65)
    colours = shade((bands[1:] + bands[:-1]) / 2)[:, None]
    ax.pcolormesh(strip, bands, colours, cmap=SCALE, vmin=0, vmax=1, edgecolors="face", lw=0.3, zorder=4)
    for at, scale in enumerate((*scales, last)):
        _draw_axis(ax, at, scale, slanted, scale is last)
    lowest = _UNUSED - 0.09 if np.isnan(lines).any() else -0.06
    ax.set(xlim=(-0.45, len(scales) + 0.25), ylim=(lowest, 1.26 if slanted else 1.13))
    ax.axis("off")
    return canvas, _caption(scored, lines, chosen)


def _draw_line(ax: Axes, places: Places, darkness: float | None, chosen: bool, width: float) -> None:
    """One trial: straight from axis to axis, below it where a parameter was not used; no ``darkness``: not complete."""
    heights = np.where(np.isnan(places), _UNUSED, places)
    if chosen:
        ax.plot(heights, color=CHOSEN, lw=3.4, zorder=5, solid_joinstyle="round")
        ax.plot(len(places) - 1, heights[-1], "*", ms=15, color=CHOSEN, mec="white", zorder=8, clip_on=False)
    elif darkness is None:
        ax.plot(heights, color=FADED, lw=0.8, alpha=0.6, zorder=1, solid_joinstyle="round")
    else:
        ax.plot(heights, color=SCALE(darkness), lw=width, zorder=3, solid_joinstyle="round")


def _draw_axis(ax: Axes, at: float, scale: Scale, slanted: bool, last: bool) -> None:
    ax.plot([at, at], [0, 1], color="#777777", lw=1, zorder=4)
    most = 9 if slanted else 15
    title: dict[str, Any] = {"ha": "left", "rotation": 25} if slanted else {"ha": "center"}
    ax.text(at, 1.06, label(scale.name, 20), va="bottom", rotation_mode="anchor", size=9.5, weight="bold", **title)
    if np.isnan(scale.places).any():
        _write_tick(ax, at - 0.025, _UNUSED, "not used", most)
    for place, text in scale.ticks:
        ax.plot([at - 0.012, at + 0.012], [place, place], color="#777777", lw=1, zorder=4)
        _write_tick(ax, at + 0.04 if last else at - 0.025, place, text, most, "left" if last else "right")


def _write_tick(ax: Axes, x: float, y: float, text: str, most: int, side: str = "right") -> None:
    behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.78, "pad": 0.8}
    ax.text(x, y, label(text, most), ha=side, va="center", size=SMALL, zorder=6, bbox=behind)


def _shades(complete: Places, upwards: bool) -> Callable[[Places], Places]:
    """How dark a place on the score's axis is drawn. All shades are for the complete trials' places: they may lie close
    together, far above those that were stopped early."""
    low, high = (complete.min(), complete.max()) if len(complete) else (0.0, 1.0)

    def shade(places: Places) -> Places:
        share = np.clip((places - low) / (high - low), 0, 1) if high > low else (places >= low).astype(float)
        return 0.12 + 0.88 * (share if upwards else 1 - share)

    return shade


def _caption(scored: pd.DataFrame, lines: Places, chosen: int) -> str:
    text = "Each line is a trial, from its parameters on the left to its score on the right; the stronger, the better."
    if (scored["state"] != "COMPLETE").any():
        text += " Grey, thin: stopped early."
    if (scored["trial"] == chosen).any():
        text += f" Thick, with the star: trial {chosen}, the chosen one."
    if np.isnan(lines).any():
        text += " “Not used”: the trial's other settings left no place for that parameter."
    return text
