"""The figure that shows how far a model's confidence can be trusted: reliability diagrams."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from search.calibration import BINS, calibration_error, reliability_bins
from search.style import BAD, INK, PLAIN, SMALL, WIDTH, new_canvas


@dataclass(frozen=True)
class Confidences:
    """What a model said of N images."""

    confidence: NDArray[np.floating]
    """Of the predicted class, in 0–1: ``[N]``."""
    correct: NDArray[np.bool_]
    """``[N]``."""

    @property
    def error(self) -> float:
        """The expected calibration error."""
        return calibration_error(self.confidence, self.correct)


@dataclass(frozen=True)
class Reliability:
    """A model's confidences as it was trained, and with its temperature."""

    before: Confidences
    after: Confidences | None = None
    """None where no temperature was fitted."""
    temperature: float | None = None
    """What the logits are divided by; None: not told."""
    images: str = "validation"
    """The split."""


def draw_reliability(reliability: Reliability) -> tuple[Canvas, str] | None:
    """Accuracy against confidence, in ten bins of equal width; None without images.

    Returns the figure and its caption.
    """
    before, after = reliability.before, reliability.after
    panels = [("as trained", before)] + ([("with temperature", after)] if after else [])
    if not len(before.confidence):
        return None
    canvas = new_canvas(WIDTH if after else WIDTH * 0.55, 4.6, gap=0.05)
    grid = canvas.subplots(2, len(panels), height_ratios=[4, 1], sharex=True, squeeze=False)
    # Of two classes the predicted one's confidence is at least a half.
    low = 0.5 if all(shown.confidence.min() >= 0.5 for _, shown in panels) else 0.0
    for (upper, lower), (name, shown) in zip(grid.T, panels, strict=True):
        _draw_bins(upper, lower, shown)
        upper.set_title(f"{name}: expected calibration error {shown.error:.1%}", size=10)
        upper.set_xlim(low, 1)
    grid[0, 0].set_ylabel("share that is right")
    grid[1, 0].set_ylabel("images")
    handles, names = grid[0, 0].get_legend_handles_labels()
    canvas.legend(handles, names, loc="outside upper left", ncols=3 if after else 2)
    return canvas, _caption(reliability)


def _draw_bins(upper: Axes, lower: Axes, shown: Confidences) -> None:
    counts, confidence, accuracy = reliability_bins(shown.confidence, shown.correct)
    middles, known = (np.arange(BINS) + 0.5) / BINS, counts > 0
    upper.bar(middles[known], accuracy[known], 0.092, color=PLAIN, label="share that is right")
    gap, bottom = np.abs(confidence - accuracy)[known], np.minimum(confidence, accuracy)[known]
    gaps: dict[str, Any] = {"facecolor": "none", "edgecolor": BAD, "hatch": "////", "lw": 1.2}
    upper.bar(middles[known], gap, 0.092, bottom, label="distance from the mean confidence", **gaps)
    upper.plot([0, 1], [0, 1], color=INK, lw=1.2, ls=(0, (4, 2)), label="confidence and truth agree")
    upper.set_ylim(0, 1.02)
    upper.set_yticks(np.linspace(0, 1, 6), [f"{share:.0%}" for share in np.linspace(0, 1, 6)])
    upper.grid(axis="y")
    lower.bar(middles[known], counts[known], 0.092, color=PLAIN)
    for middle, count in zip(middles[known], counts[known], strict=True):
        lower.annotate(f"{count:,}", (middle, count), (0, 2), textcoords="offset points", ha="center", size=SMALL)
    lower.set_ylim(0, counts.max() * 1.4)
    lower.set_yticks([])
    lower.set_xticks(np.linspace(0, 1, 11), [f"{share:.0%}" for share in np.linspace(0, 1, 11)])
    lower.set_xlabel("confidence")


def _caption(reliability: Reliability) -> str:
    count, before = (
        len(reliability.before.confidence),
        reliability.before.error,
    )
    text = (
        f"How often the model is right when it is so sure, on {count:,} {reliability.images} images in ten bins. Where "
        "a bar ends at the dashed line, a confidence of 80% means 80% right; a bar that ends below it is too sure. "
    )
    if reliability.after is None:
        text += f"The expected calibration error is {before:.1%}."
    else:
        named = f" of {reliability.temperature:.3g}" if reliability.temperature is not None else ""
        text += (
            f"A temperature{named} changes no prediction, only how sure it is: the expected calibration error goes "
            f"from {before:.1%} to {reliability.after.error:.1%}."
        )
    return text + " Bins of few images say little."
