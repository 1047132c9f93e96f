"""The figure that shows photographs with what the model says of them: right ones, and its worst mistakes."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from search.style import BAD, GOOD, INK, SMALL, WIDTH, class_labels, label

_COLUMNS, _ROWS = 5, 3

_PIXELS = 280
"""Side of a photograph in the file: sharp where it is shown at 180."""

_SIDE, _GAP, _HEADING, _TEXT = 1.87, 0.12, 0.46, {True: 0.44, False: 0.62}
"""Inches: a photograph, between two of them, a block's heading, the text below a right one and below a mistake. No
layout engine: it would shrink all photographs where one class has a long name."""


def draw_predictions(predictions: pd.DataFrame) -> tuple[Canvas, str]:
    """Right predictions and the worst mistakes, as photographs.

    Args:
        predictions: path, class, predicted, confidence (0-1), correct: a row an image; not empty.

    Returns:
        The figure and its caption.
    """
    correct = predictions["correct"].astype(bool)
    right, wrong = predictions[correct], predictions[~correct]
    rows = dict(zip((True, False), _rows(len(right), len(wrong)), strict=True))
    blocks = {
        True: _spread(right, rows[True] * _COLUMNS),
        False: wrong.sort_values(["confidence", "path"], ascending=[False, True]).head(rows[False] * _COLUMNS),
    }
    height = sum(_HEADING + n * (_SIDE + _TEXT[good]) for good, n in rows.items() if n)
    canvas = Canvas(figsize=(WIDTH, height))
    names = class_labels(sorted({*predictions["class"], *predictions["predicted"]}), 15)
    top = 0.0
    for good, block in blocks.items():
        if rows[good]:
            heading = _heading(good, len(block), len(right if good else wrong))
            canvas.text(0.005, 1 - (top + 0.12) / height, heading, va="top", size=11, weight="bold")
            _draw_block(canvas, block, names, top + _HEADING, _SIDE + _TEXT[good])
            top += _HEADING + rows[good] * (_SIDE + _TEXT[good])
    return canvas, _caption(len(right), len(wrong))


def _draw_block(canvas: Canvas, block: pd.DataFrame, names: Mapping[str, str], top: float, pitch: float) -> None:
    """Photographs in rows, the first ``top`` inches below the figure's upper edge, the next ``pitch`` further down."""
    height = canvas.get_figheight()
    for i, (_, row) in enumerate(block.iterrows()):
        left = 0.04 + i % _COLUMNS * (_SIDE + _GAP)
        bottom = height - top - i // _COLUMNS * pitch - _SIDE
        ax = canvas.add_axes((left / WIDTH, bottom / height, _SIDE / WIDTH, _SIDE / height))
        _draw_photo(ax, row, names)


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


def _heading(correct: bool, shown: int, of: int) -> str:
    if correct:
        return f"Right: {shown} of {of:,}"
    which = (
        f"Worst mistakes ({shown} of {of:,})" if shown < of else f"All {of} mistakes" if of > 1 else "The only mistake"
    )
    return which + (", the surest first" if of > 1 else "")


def _caption(right: int, wrong: int) -> str:
    total = right + wrong
    parts = "Under each photograph, cropped to its middle, stand the prediction, its confidence and the true class."
    if not wrong:
        return f"No mistakes: all {total:,} validation images are classified right. {parts}"
    return (
        f"{right:,} of {total:,} validation images are classified right. {parts} Mistakes that the model is sure of "
        "are often wrong labels, or images that show something else: look at them first."
    )


def _draw_photo(ax: Axes, row: pd.Series, names: Mapping[str, str]) -> None:
    right = bool(row["correct"])
    colour, mark = (GOOD, "✓") if right else (BAD, "✗")
    ax.set(xticks=[], yticks=[])
    ax.imshow(_thumbnail(Path(row["path"])), interpolation="none")
    ax.spines[:].set(visible=True, color=colour, lw=3, ls="-" if right else (0, (3, 1)), capstyle="butt")
    badge = {"boxstyle": "circle,pad=0.2", "facecolor": colour, "edgecolor": "white"}
    ax.text(0.09, 0.91, mark, transform=ax.transAxes, ha="center", va="center", color="white", size=10, bbox=badge)
    name = "" if right else f"\n{label(Path(row['path']).name, 25)}"
    ax.set_xlabel(f"\ntrue: {names[row['class']]}{name}", size=SMALL, color="#555555", linespacing=1.3)
    said = f"{names[row['predicted']]} {_percent(row['confidence'])}"
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
