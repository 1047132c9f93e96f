"""The figures that show what the model says of images: photographs with its predictions, and the confusion matrix."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from search.style import BAD, GOOD, INK, SMALL, WIDTH, label, new_canvas

_COLUMNS, _ROWS = 5, 3
_PIXELS = 280
"""Side of a photograph in the figure: sharp where it is shown at 180."""


def draw_predictions(predictions: pd.DataFrame) -> tuple[Canvas, str]:
    """Right predictions and the worst mistakes, as photographs.

    Args:
        predictions: path, class, predicted, confidence (0-1), correct: a row an image.

    Returns:
        The figure and its caption.
    """
    right, wrong = predictions[predictions["correct"]], predictions[~predictions["correct"]]
    wrong = wrong.sort_values(["confidence", "path"], ascending=[False, True])
    right_rows, wrong_rows = _rows(len(right), len(wrong))
    canvas = new_canvas(WIDTH, 0.5 + 2.5 * (right_rows + wrong_rows), pad=0.06)
    parts = [(part, rows) for part, rows in ((right, right_rows), (wrong, wrong_rows)) if rows]
    blocks = canvas.subfigures(len(parts), 1, height_ratios=[rows for _, rows in parts], squeeze=False)[:, 0]
    for block, (part, rows) in zip(blocks, parts, strict=True):
        shown = part.head(rows * _COLUMNS) if part is wrong else _spread(part, rows * _COLUMNS)
        block.suptitle(_heading(part is wrong, len(shown), len(part)), x=0.005, ha="left", size=11, weight="bold")
        axes = list(block.subplots(rows, _COLUMNS, squeeze=False).flat)
        for ax in axes:
            ax.axis("off")
        for ax, (_, row) in zip(axes, shown.iterrows(), strict=False):
            _draw_photo(ax, row)
    return canvas, _caption(predictions, len(wrong))


def draw_confusion(predictions: pd.DataFrame, classes: Sequence[str]) -> tuple[Canvas, str]:
    """How many images of each class were taken for which; the arguments as above, all classes in their order."""
    counts = pd.crosstab(predictions["class"], predictions["predicted"])
    table = counts.reindex(index=list(classes), columns=list(classes), fill_value=0).to_numpy()
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    n = len(classes)
    names = [label(name, 22) for name in classes]
    margin = 0.085 * max(map(len, names))
    side = min(max(0.34 * n, 2.6), WIDTH - margin - 1.8)
    slanted = n > 4 or max(map(len, names)) > 14
    canvas = new_canvas(side + margin + 1.8, side + (margin * 0.75 if slanted else 0.2) + 0.55)
    ax = canvas.subplots()
    picture = ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    _write_cells(ax, table, share)
    ax.set_xticks(range(n), names)
    ax.set_yticks(range(n), names)
    if slanted:
        ax.tick_params("x", rotation=45)
        for text in ax.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.spines[:].set_visible(False)
    ax.set_xticks(np.arange(1, n) - 0.5, minor=True)
    ax.set_yticks(np.arange(1, n) - 0.5, minor=True)
    ax.grid(which="minor", color="white", lw=1.5)
    ax.tick_params(which="both", length=0)
    bar = canvas.colorbar(picture, ax=ax, shrink=0.8, ticks=[0, 0.5, 1], format=lambda v, _: f"{v:.0%}")
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    return canvas, _recalls(classes, table)


def _rows(right: int, wrong: int) -> tuple[int, int]:
    """Rows of right photographs and of mistakes: three together where there are as many."""
    wrong_rows = min(_ROWS - 1, math.ceil(wrong / _COLUMNS))
    right_rows = min(_ROWS - wrong_rows, math.ceil(right / _COLUMNS))
    return right_rows, min(_ROWS - right_rows, math.ceil(wrong / _COLUMNS))


def _spread(right: pd.DataFrame, most: int) -> pd.DataFrame:
    """A fair picture of the right ones: evenly over classes and, in each, from unsure to sure."""
    ordered = right.sort_values(["class", "confidence", "path"])
    count = min(most, len(ordered))
    return ordered.iloc[((np.arange(count) + 0.5) * len(ordered) / count).astype(int)]


def _heading(wrong: bool, shown: int, of: int) -> str:
    if not wrong:
        return f"Right: {shown} of {of:,}"
    return (
        f"All mistakes, the surest first: {of:,}"
        if shown == of
        else f"Worst mistakes, the surest first: {shown} of {of:,}"
    )


def _caption(predictions: pd.DataFrame, mistakes: int) -> str:
    total = len(predictions)
    if not mistakes:
        return (
            f"No mistakes: all {total:,} validation images are classified right. The photographs, cropped to their "
            "middle, run from the unsure to the sure; under each stand the prediction, its confidence and the true "
            "class."
        )
    return (
        f"{total - mistakes:,} of {total:,} validation images are classified right. Under each photograph, cropped to "
        "its middle, stand the prediction, its confidence and the true class. Mistakes that the model is sure of are "
        "often wrong labels or images that show something else: look at them first."
    )


def _draw_photo(ax: Axes, row: pd.Series) -> None:
    right = bool(row["correct"])
    colour, mark = (GOOD, "✓") if right else (BAD, "✗")
    ax.axis("on")
    ax.set(xticks=[], yticks=[])
    ax.imshow(_thumbnail(Path(row["path"])), interpolation="none")
    ax.spines[:].set(visible=True, color=colour, lw=3, ls="-" if right else (0, (3, 1)), capstyle="butt")
    badge = {"boxstyle": "circle,pad=0.2", "facecolor": colour, "edgecolor": "white"}
    ax.text(0.09, 0.91, mark, transform=ax.transAxes, ha="center", va="center", color="white", size=10, bbox=badge)
    name = "" if right else f"\n{label(Path(row['path']).name, 26)}"
    ax.set_xlabel(f"\ntrue: {label(row['class'], 22)}{name}", size=SMALL, color="#555555", linespacing=1.3)
    said = f"{label(row['predicted'], 20)} {_percent(row['confidence'])}"
    ax.annotate(  # on the empty first line of the label below the photograph
        said, (0.5, 0), (0, -5), "axes fraction", "offset points", ha="center", va="top", color=colour, weight="bold"
    )


def _percent(confidence: float) -> str:
    return ">99%" if confidence >= 0.995 else f"{confidence:.0%}"


def _thumbnail(path: Path) -> NDArray[np.uint8]:
    """The middle square of an image, [H, W, 3]; a grey one where the file cannot be read any more."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * _PIXELS, 2 * _PIXELS))
            image.load()
            return np.array(ImageOps.fit(_rgb(ImageOps.exif_transpose(image)), (_PIXELS, _PIXELS)))
    except (OSError, ValueError, SyntaxError):
        grey = Image.new("RGB", (_PIXELS, _PIXELS), "#DDDDDD")
        ImageDraw.Draw(grey).text((_PIXELS // 2, _PIXELS // 2), "cannot be read", fill=INK, anchor="mm", font_size=24)
        return np.array(grey)


def _rgb(image: Image.Image) -> Image.Image:
    """As the trials saw it (see `trainable.decode`, which this does not import because it takes torch along)."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, float)
        deep = 256 if image.mode.startswith("I") else 1 if values.max() > 1 else 1 / 255
        return Image.fromarray((values / deep).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    return image.convert("RGB")


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


def _recalls(classes: Sequence[str], table: NDArray[np.int64]) -> str:
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
