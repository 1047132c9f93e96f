"""The figures that show what single parameters do: their importances, and a slice a parameter."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from search.scale import Scale, make_scale
from search.style import CHOSEN, INK, PLAIN, WIDTH, label, metric_label, new_canvas


def draw_importances(importances: Mapping[str, float], parameters: Sequence[str]) -> tuple[Canvas, str] | None:
    """A bar a parameter, the most important on top; None where there are none.

    Args:
        parameters: all there are; the caption names those without an importance.
    """
    ranked = sorted((float(share), name) for name, share in importances.items() if math.isfinite(share))
    if not ranked:
        return None
    canvas = new_canvas(WIDTH * 0.75, 0.75 + 0.36 * len(ranked))
    ax = canvas.subplots()
    shares, places = [share for share, _ in ranked], range(len(ranked))
    ax.barh(places, shares, height=0.62, color=PLAIN)
    ax.set_yticks(places, [label(name, 28) for _, name in ranked])
    for place, share in zip(places, shares, strict=True):
        text = f"{share:.0%}" if share >= 0.005 else "<1%"
        ax.annotate(text, (share, place), (5, 0), textcoords="offset points", va="center", size=9)
    ax.set(xlim=(0, max(*shares, 1e-9) * 1.12), xticks=[], xlabel="share of the differences between trials")
    ax.tick_params("y", length=0)
    ax.spines["bottom"].set_visible(False)
    name = label(ranked[-1][1])
    others = ", ".join(label(name) for name in parameters if name not in importances)
    return canvas, (
        f"How much of the differences between the sampler's trials each parameter explains; {name} the most. An "
        "estimate from few trials is a hint, no more."
        + (f" Not compared, since some trials do without: {others}." if others else "")
    )


def draw_slices(trials: pd.DataFrame, parameters: Sequence[str], metric: str, chosen: int) -> tuple[Canvas, str] | None:
    """A panel a parameter: the trials' scores (column ``score``) against it; None where fewer than two trials have one.

    Returns the figure and its caption.
    """
    scored = trials[trials["score"].notna()].reset_index(drop=True)
    scales = [scale for name in parameters if (scale := make_scale(name, scored[name]))]
    if not scales or len(scored) < 2:
        return None
    columns = min(len(scales), 3 if len(scales) in (3, 5, 6, 9) else 4)
    rows = math.ceil(len(scales) / columns)
    canvas = new_canvas(WIDTH if columns > 2 else 2.0 + 3.0 * columns, 0.35 + 2.75 * rows)
    grid = canvas.subplots(rows, columns, sharey=True, squeeze=False)
    for ax, scale in zip(grid.flat, scales, strict=False):
        _draw_slice(ax, scale, scored, chosen, inches=0.85 * canvas.get_figwidth() / columns)
    for ax in list(grid.flat)[len(scales) :]:
        ax.axis("off")
    for ax in grid[:, 0]:
        ax.set_ylabel(metric_label(metric))
    handles = {name: mark for ax in grid.flat for mark, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    canvas.legend(handles.values(), handles, loc="outside upper left", ncols=3)
    return canvas, (
        f"Each trial's {metric_label(metric)} against one parameter at a time. What the sampler liked it tried more "
        "often, so look at how high the best points of a region lie, not at how many there are."
    )


def _draw_slice(ax: Axes, scale: Scale, scored: pd.DataFrame, chosen: int, inches: float) -> None:
    # The golden ratio's multiples spread the trials of one choice evenly, and the same way every time.
    spread = ((scored["trial"] * 0.6180339887) % 1 - 0.5).to_numpy()
    x = scale.places + (spread * 0.5 / len(scale.ticks) if scale.kind == "choices" else 0)
    complete = (scored["state"] == "COMPLETE").to_numpy()
    own = (scored["trial"] == chosen).to_numpy()
    y = scored["score"].to_numpy()
    looks: list[tuple[Any, str, dict[str, Any]]] = [
        (~complete & ~own, "stopped early", {"marker": "o", "ms": 4.5, "mfc": "white", "mec": "#9A9A9A"}),
        (complete & ~own, "complete", {"marker": "o", "ms": 6, "color": PLAIN, "mec": "white", "mew": 0.5}),
        (own, "chosen", {"marker": "*", "ms": 14, "color": CHOSEN, "mec": "white"}),
    ]
    for which, name, look in looks:
        if (which & ~np.isnan(x)).any():
            ax.plot(x[which], y[which], ls="", label=name, **look)
    ax.set_xlim(-0.07, 1.07)
    ax.set_xticks([place for place, _ in scale.ticks], [text for _, text in scale.ticks])
    needed = (0.036 * (len(before) + len(after)) + 0.1 for (_, before), (_, after) in pairwise(scale.ticks))
    gaps = (inches * (after - before) for (before, _), (after, _) in pairwise(scale.ticks))
    if any(need > gap for need, gap in zip(needed, gaps, strict=True)):
        ax.tick_params("x", rotation=30)
        for text in ax.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    ax.set_title(label(scale.name, 26), color=INK, weight="bold", size=9.5)
    ax.grid(axis="y")
