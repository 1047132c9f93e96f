"""What a run found, in numbers and in plain words."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from search.estimate import Estimate, wilson_interval


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


def wilson(correct: int, total: int) -> Score:
    """The score with its interval: see `wilson_interval`."""
    return Score(correct, total, *wilson_interval(correct / total, total))


@dataclass(frozen=True)
class Recipe:
    """One of the tutorial's recipes, as the search ran it."""

    name: str
    trial: int
    value: float
    """The metric that it reached on the validation split, at its best epoch."""
    chance: float
    """How probable a difference between it and the chosen trial as large as this is, were both equally accurate."""


_SIGNIFICANT = 0.05

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
    estimate: Estimate
    """What to expect of the best trial on new images, by the validation images alone."""
    recipes: Sequence[Recipe]
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
                "There is no test split, and the best of many validation scores is too good to be true. Allowing for "
                f"the choice, expect {self.estimate} on new images (BBC-CV). Set data.test to seal a part of your "
                "images, and to measure it."
            )
        said += [self._comparison(recipe, metric) for recipe in self.recipes]
        said.append(
            "Retraining gave the very numbers of the search, epoch by epoch."
            + (_HALF if self.precision == "bf16" else "")
            if self.same_curve
            else "Retraining did not give exactly the numbers of the search: other hardware, thread count or "
            "library versions add up floating-point numbers in another order."
        )
        return said

    def _comparison(self, recipe: Recipe, metric: str) -> str:
        if recipe.trial == self.trial:
            return f"Trial {self.trial} is the tutorial's recipe “{recipe.name}” itself."
        said = (
            f"The tutorial's recipe “{recipe.name}” reached a validation {metric} of {recipe.value:.4f}; "
            f"trial {self.trial} {self.value:.4f}. "
        )
        test = f"{self.val.total} images (exact McNemar test, p = {recipe.chance:.2g})"
        if recipe.chance >= _SIGNIFICANT:
            return f"{said}Which of the two is more accurate cannot be told from {test}."
        return f"{said}That they differ in accuracy is more than chance on {test}."

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
