"""The figure that shows which classes the model takes for which."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from search.style import INK, WIDTH, class_labels, label, new_canvas

_COLOURS = matplotlib.colormaps["Blues"].resampled(32)


def draw_confusion(predictions: pd.DataFrame, classes: Sequence[str]) -> tuple[Canvas, str]:
    """The confusion matrix: counts, and shares of the true class.

    Args:
        predictions: class, predicted: a row an image.
        classes: all of them, in their order.

    Returns:
        The figure and its caption.
    """
    counts = pd.crosstab(predictions["class"], predictions["predicted"])
    table = counts.reindex(index=list(classes), columns=list(classes), fill_value=0).to_numpy()
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    names = list(class_labels(classes, 22).values())
    longest = max(map(len, names))
    slanted = len(names) > 4 or longest > 14
    margin = 0.085 * longest
    side = min(max(0.34 * len(names), 2.6), WIDTH - margin - 1.8)
    canvas = new_canvas(side + margin + 1.8, side + (margin * 0.75 if slanted else 0.2) + 0.55)
    ax = canvas.subplots()
    cells = _draw_cells(ax, table, share)
    _write_cells(ax, table, share)
    _name_classes(ax, names, slanted)
    bar = canvas.colorbar(cells, ax=ax, shrink=0.8, ticks=[0, 0.5, 1], format=lambda value, _: f"{value:.0%}")
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    if bar.solids is not None:
        bar.solids.set_edgecolor("face")  # no paper shows between its colours
    return canvas, _caption(classes, table)


def _draw_cells(ax: Axes, table: NDArray[np.int64], share: NDArray[np.float64]) -> PatchCollection:
    """A square a cell that is not zero: shapes, not a picture, whose colours a page can change."""
    filled = np.argwhere(table)
    squares = [Rectangle((j - 0.5, i - 0.5), 1, 1) for i, j in filled]
    cells = PatchCollection(squares, cmap=_COLOURS, array=share[*filled.T], clim=(0, 1), lw=0, zorder=0)
    ax.add_collection(cells)
    ax.set_facecolor(_COLOURS(0.0))
    ax.set(xlim=(-0.5, len(table) - 0.5), ylim=(len(table) - 0.5, -0.5))
    return cells


def _name_classes(ax: Axes, names: Sequence[str], slanted: bool) -> None:
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(names)), names)
    if slanted:
        ax.tick_params("x", rotation=45)
        for text in ax.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    ax.spines[:].set_visible(False)
    ax.set_xticks(np.arange(1, len(names)) - 0.5, minor=True)
    ax.set_yticks(np.arange(1, len(names)) - 0.5, minor=True)
    ax.grid(which="minor", color="white", lw=1.5)
    ax.tick_params(which="both", length=0)


def _write_cells(ax: Axes, table: NDArray[np.int64], share: NDArray[np.float64]) -> None:
    """Counts, with shares where they fit; of many classes only what is not zero."""
    n = len(table)
    if n > 40:
        return
    for i, j in np.ndindex(table.shape):
        if n > 8 and not table[i, j]:
            continue
        text = f"{table[i, j]:,}\n{share[i, j]:.0%}" if n <= 5 else f"{table[i, j]:,}"
        colour = "white" if share[i, j] > 0.6 else INK
        size = 11 if n <= 5 else 9 if n <= 12 else 7.5
        ax.text(j, i, text, ha="center", va="center", color=colour, size=size)


def _caption(classes: Sequence[str], table: NDArray[np.int64]) -> str:
    found = [(table[i, i] / table[i].sum(), name, table[i].sum()) for i, name in enumerate(classes) if table[i].sum()]
    start = "Rows are what the images are, columns what the model takes them for; right ones lie on the diagonal."
    if len(found) < 2:
        return start
    (least, worst, count), (most, best, _) = min(found), max(found)
    if least == most:
        return f"{start} Every class is recognised equally well: {most:.0%}."
    return (
        f"{start} Recognised best is {label(best)} ({most:.0%} of its images), worst {label(worst)} ({least:.0%} of "
        f"{count:,})."
    )
