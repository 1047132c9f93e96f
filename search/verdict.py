"""What a run found, in numbers and in plain words."""

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


_SIGNIFICANT = 0.05

_IMAGES = {"test": "sealed test images", "val": "validation images"}


@dataclass(frozen=True)
class Verdict:
    """How good the chosen model is, what it was chosen from, and whether the search was worth it."""

    trial: int
    asked_for: bool
    """Whether the user asked for this trial; then the test split stays sealed."""
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

    def sentences(self) -> list[str]:
        """The verdict in plain words, a paragraph an item; the first two say what matters."""
        if self.asked_for:
            return [
                f"This is trial {self.trial}, which you asked for ({self.values}). Trained again for {self._epochs()}, "
                f"it classifies {self.val} of the validation images correctly.",
                "Sealed test images are kept for the best trial.",
                *self._details(),
            ]
        return [self._quality(), self._worth(), *self._details()]

    def _quality(self) -> str:
        guess = f"always answering “{self.baseline.answer}” would be right in {self.baseline.accuracy:.1%}"
        if self.honest <= self.baseline.accuracy:
            guess += ", which is no less"
        use = f"Use trial {self.trial} ({self.values}, {self._epochs()})"
        if self.test is not None:
            return (
                f"{use}: it classifies {self.test} of the sealed test images correctly. They played no part in the "
                f"search, so this is the figure to quote; {guess}."
            )
        return (
            f"{use}, and expect it to classify {self.estimate} of new images correctly; {guess}. There is no test "
            "split: this is an estimate from the validation images (BBC-CV), which allows for the choice."
        )

    def _worth(self) -> str:
        if self.recipe:
            return (
                f"Nothing that the search tried is worth more than the tutorial's recipe “{self.recipe}”: it is the "
                "winner itself."
            )
        if not self.comparisons:
            return "There is none of the tutorial's recipes to compare with: none was trained to its end."
        better = [one for one in self.comparisons if one.chance < _SIGNIFICANT and one.difference > 0]
        judged = f"on the same {self.comparisons[0].images:,} {_IMAGES[self.comparisons[0].split]}"
        each = "; ".join(_describe(one) for one in self.comparisons)
        worse = [one for one in self.comparisons if one.chance < _SIGNIFICANT and one.difference < 0]
        if worse:
            winners = " and ".join(f"“{one.name}”" for one in worse)
            return f"The search was not worth it, {winners} did better: {judged} the chosen trial is {each}."
        if len(better) == len(self.comparisons):
            return f"The search was worth it: {judged} it is {each}. That is more than chance."
        if better:
            beaten = " and ".join(f"“{one.name}”" for one in better)
            return f"The search beat the tutorial's recipe {beaten}, but not both for certain: {judged} it is {each}."
        return (
            f"Whether the search bought anything over the tutorial's recipes cannot be told: {judged} it is {each}. "
            f"What decides is the test, which takes p < {_SIGNIFICANT:g}; on few images such an interval is too narrow."
        )

    def _details(self) -> list[str]:
        said = []
        if self.choice is not None:
            said.append(self._finalists(self.choice))
        if not self.asked_for:
            all_folds = " that went through all folds" if self.folds else ""
            said.append(
                f"Of {self.candidates} configurations{all_folds} it was chosen by its validation "
                f"{_spoken(self.metric)}: {self.value:.4f} in the search, at its best epoch. Its validation accuracy, "
                f"{self.val}, is "
                f"{_points(self.optimism)} than the honest figure."
            )
        calibration = self.calibration
        if calibration.temperature != 1:
            goes = f"goes from {calibration.before:.1%} to {calibration.after:.1%}"
            said.append(
                f"On the validation images it was {'too' if calibration.temperature > 1 else 'not'} sure"
                f"{'' if calibration.temperature > 1 else ' enough'} of itself, so its logits are divided by "
                f"{calibration.temperature:.2f} (temperature scaling). The expected calibration error on the "
                f"{_IMAGES[calibration.split]} {goes}."
            )
        if self.retrained_on == "train+val":
            said.append(
                "The model that is handed over was trained on the validation images, too. Validation scores, and the "
                "comparison with the recipes, are those of its configuration trained on the training images alone."
            )
        if self.folds:
            said.append(
                f"Validation is cross-validation in {self.folds} folds: each image is judged by a model that did not "
                "see it. The model that is handed over was trained on all of them."
            )
        said += self._opened()
        if self.same_curve is not None:
            said.append(
                "Retraining gave the very numbers of the search, epoch by epoch."
                if self.same_curve
                else "Retraining did not give exactly the numbers of the search: other hardware, thread count or "
                "library versions add up floating-point numbers in another order."
            )
        if self.precision == "bf16":
            said.append(
                "In the search the frozen stages compute in bf16; the model judged here computes in fp32, and can "
                "differ in an image."
            )
        return said

    def _finalists(self, choice: Choice) -> str:
        others = [self.names[trial] for trial in choice.tied if trial != choice.winner]
        again = f"were trained again with up to {self.seeds} other seeds, as long as they could win"
        if self.folds:
            again = f"were scored on {self.folds} folds"
        mean = f"a mean validation {_spoken(self.metric)} of {choice.mean:.4f}"
        said = f"{len(self.names) - len(self.passed_over)} finalists {again}. "
        if self.passed_over:
            said += (
                "Not trained again, being costlier than the best of these and not better by a standard error even in "
                f"the search: {', '.join(self.passed_over)}. "
            )
        said += f"{self.names[choice.winner].capitalize()} reached {mean}"
        if not others:
            return f"{said}, the best by more than one standard error ({choice.error:.4f})."
        tie = f"{', '.join(others)} {'are' if len(others) > 1 else 'is'} within one standard error ({choice.error:.4f})"
        return f"{said}; {tie} of the best mean, {choice.best_mean:.4f}, too, but dearer to train."

    def _opened(self) -> list[str]:
        if len(self.openings) < 2:
            return []
        models = len({opening.weights for opening in self.openings})
        return [
            f"The sealed test images have been opened {len(self.openings)} times, for {models} model"
            f"{'s' if models > 1 else ''}; the first time on {self.openings[0].time}. "
            + (
                "Whatever was decided after that, the figure above no longer judges it fairly."
                if models > 1
                else "It was the same model each time, so the figure stands."
            )
        ]

    def _epochs(self) -> str:
        return f"{self.epochs} epoch" + ("s" if self.epochs != 1 else "")

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for ``report.json``."""
        numbers = {**asdict(self), "honest_accuracy": self.honest, "optimism": self.optimism}
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


def _describe(comparison: Comparison) -> str:
    better = "more" if comparison.difference >= 0 else "less"
    return (
        f"{abs(comparison.difference) * 100:.1f} points {better} accurate than “{comparison.name}” (95 % interval "
        f"{comparison.low * 100:+.1f} to {comparison.high * 100:+.1f}; exact McNemar test, p = {comparison.chance:.2g})"
    )


def _points(optimism: float) -> str:
    return f"{abs(optimism) * 100:.1f} points {'higher' if optimism >= 0 else 'lower'}"


def _spoken(metric: str) -> str:
    return metric.removeprefix("val_").replace("_", " ")
