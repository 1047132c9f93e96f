"""What a run found, in numbers and in plain words."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Score:
    """A share of images classified correctly, with its 95 % Wilson interval."""

    correct: int
    total: int
    low: float
    high: float

    @property
    def accuracy(self) -> float:
        """The share, in 0–1."""
        return self.correct / self.total

    def __str__(self) -> str:
        return f"{self.accuracy:.1%} ({self.correct} of {self.total}; 95 % interval {self.low:.1%} to {self.high:.1%})"


def wilson(correct: int, total: int, z: float = 1.959964) -> Score:
    """The Wilson score interval (Wilson, *JASA* 22, 1927; equation 4 of Brown, Cai, DasGupta, *Stat. Sci.* 16, 2001).

    Args:
        z: the normal quantile; 1.96 gives 95 %.
    """
    share = correct / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return Score(correct, total, max(0.0, centre - half), min(1.0, centre + half))


_HALF = " There the frozen stages compute in bf16; the model judged here computes in fp32, and can differ in an image."


@dataclass(frozen=True)
class Verdict:
    """The retrained model's scores, and those of the tutorial's recipes in the search."""

    trial: int
    best: int | None
    """The best complete trial; another than ``trial`` where the user asked for that; None: no trial is complete."""
    epochs: int
    metric: str
    val: Score
    test: Score | None
    recipes: Mapping[str, float]
    """The metric that each of the recipes reached on the validation split, at its best epoch."""
    value: float
    """The metric that the chosen trial reached there."""
    same_curve: bool
    precision: str
    """Of the frozen stages in the search; the model that is judged computes in fp32."""
    candidates: int
    """Configurations among which the chosen one was the best."""

    def sentences(self) -> list[str]:
        """The verdict in plain words, a paragraph an item."""
        metric = self.metric.removeprefix("val_").replace("_", " ")
        asked_for = self.trial != self.best
        which = "No trial is complete."
        if self.best is not None:
            which = f"The best of {self.candidates} configurations is trial {self.best}."
        if asked_for:
            which = f"This is trial {self.trial}, which you asked for; {which[0].lower()}{which[1:]}"
        epochs = f"{self.epochs} epoch" + ("s" if self.epochs != 1 else "")
        said = [
            f"{which} Trained again for {epochs}, {'trial ' + str(self.trial) if asked_for else 'it'} classifies "
            f"{self.val} of the validation images correctly."
        ]
        if asked_for:
            said.append("The sealed test images, if there are any, are kept for the best.")
        elif self.test is not None:
            said.append(
                f"On the sealed test images, which played no part in the search: {self.test}. "
                "This is the figure to quote."
            )
        else:
            said.append(
                "There is no test split, and the best of many validation scores is too good to be true: expect "
                "less on new images. Set data.test to seal a part of your images."
            )
        for name, reached in self.recipes.items():
            said.append(
                f"The tutorial's recipe “{name}” reached a validation {metric} of {reached:.4f}; "
                f"trial {self.trial} {self.value:.4f}."
            )
        said.append(
            "Retraining gave the very numbers of the search, epoch by epoch."
            + (_HALF if self.precision == "bf16" else "")
            if self.same_curve
            else "Retraining did not give exactly the numbers of the search: other hardware, thread count or "
            "library versions add up floating-point numbers in another order."
        )
        return said

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for ``report.json``."""
        numbers = asdict(self)
        for split, score in (("val", self.val), ("test", self.test)):
            if score is not None:
                numbers[split]["accuracy"] = score.accuracy
        return numbers


def score_split(predictions: pd.DataFrame, split: str) -> Score | None:
    """The score on one split of a table with the columns split and correct; None where it has no image."""
    correct = predictions.loc[predictions["split"] == split, "correct"]
    return wilson(int(correct.sum()), len(correct)) if len(correct) else None
