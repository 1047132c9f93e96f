"""What a run found, in numbers; `search.wording` says it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from search.calibration import Calibration
from search.choice import Choice
from search.comparison import Comparison
from search.estimate import Estimate, wilson_interval
from search.openings import Opening


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
class Baseline:
    """What always answering with the most frequent class would reach."""

    answer: str
    accuracy: float


@dataclass(frozen=True)
class Verdict:
    """How good the chosen model is, what it was chosen from, and whether the search was worth it."""

    trial: int
    asked_for: bool
    """Whether the user asked for this trial; then the test split stays sealed."""
    sealed: bool
    """Whether there is a test split that stays sealed."""
    values: str
    """The chosen settings, in words."""
    epochs: int
    metric: str
    value: float
    """The metric that the trial reached in the search, at its best epoch."""
    candidates: int
    """Configurations that were trained."""
    val: Score
    """Of the model that was trained on the training split."""
    test: Score | None
    """Of the model that is handed over."""
    estimate: Estimate
    """What to expect on new images, by the validation images alone."""
    baseline: Baseline
    choice: Choice | None
    """None where the best trial was taken at its word."""
    names: Mapping[int, str]
    """Of the finalists."""
    passed_over: Sequence[str]
    """The names of the finalists that were not trained again, since they could not win any more."""
    diverged: Sequence[str]
    """The names of those whose training failed with some seed."""
    seeds: int
    comparisons: Sequence[Comparison]
    recipe: str
    """The tutorial's recipe that the chosen trial is itself; empty: none."""
    calibration: Calibration
    openings: Sequence[Opening]
    same_curve: bool | None
    """None: the model was trained on other images than the trial."""
    precision: str
    """Of the frozen stages in the search; the model that is judged computes in fp32."""
    retrained_on: str
    folds: int | None

    @property
    def honest(self) -> float:
        """The accuracy to be believed: on the test split where there is one, else the corrected estimate."""
        return self.test.accuracy if self.test is not None else self.estimate.accuracy

    @property
    def optimism(self) -> float:
        """How much better the validation accuracy looks."""
        return self.val.accuracy - self.honest

    @property
    def models_opened_for(self) -> int:
        """The models that the test images have judged."""
        return len({(opening.weights, opening.trained_on) for opening in self.openings})

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for ``report.json``."""
        # The estimate is that of the best; of a trial that was asked for there is none.
        honest, optimism = (None, None) if self.asked_for else (self.honest, self.optimism)
        numbers = {**asdict(self), "honest_accuracy": honest, "optimism": optimism}
        for split, score in (("val", self.val), ("test", self.test)):
            if score is not None:
                numbers[split]["accuracy"] = score.accuracy
        return numbers


def score_split(predictions: pd.DataFrame, split: str) -> Score | None:
    """The score on one split of a table with the columns split and correct; None where it has no image."""
    correct = predictions.loc[predictions["split"] == split, "correct"]
    return wilson(int(correct.sum()), len(correct)) if len(correct) else None


def majority(predictions: pd.DataFrame) -> Baseline:
    """The baseline of the images in a table with the column class."""
    shares = predictions["class"].value_counts(normalize=True)
    return Baseline(str(shares.index[0]), float(shares.iloc[0]))
