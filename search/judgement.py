"""From a run's trials to its winner and all that is known of it: the finalists, the retrained model, the test split."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from search.calibration import Calibration, calibration_error, confidences, fit_temperature
from search.choice import Choice, choose
from search.class_scores import class_scores
from search.config import Config
from search.estimate import Candidates, bias_corrected
from search.finalists import Finalist, choose_finalists
from search.folder import load_images
from search.openings import Opening, record_opening
from search.plan import check_retraining, describe_values
from search.playoff import train_finalists
from search.recipes import compare_with_recipes, trained_recipes
from search.results import CURVES, Run
from search.retrain import Logits, Retrained, kept_logits, predictions_table, retrain
from search.suspects import label_suspects
from search.verdict import Verdict, majority, score_split
from trainable.backbone import load_cached_backbone
from trainable.images import ImageSet, Record
from trainable.near_duplicates import NearDuplicate, near_duplicates

Say = Callable[[str], None]


@dataclass(frozen=True)
class Judgement:
    """Everything that a report shows."""

    verdict: Verdict
    images: ImageSet
    predictions: pd.DataFrame
    """A row an image of the validation split, and of test where it was opened."""
    classes: pd.DataFrame
    """Scores a class, on the split that the verdict quotes."""
    confidences: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]
    """Of each image of that split: the confidence before and after temperature scaling, and whether it is right."""
    finalists: pd.DataFrame
    """Of `train_finalists`; without rows where there were none."""
    suspects: pd.DataFrame
    duplicates: list[NearDuplicate]
    settings: dict[str, Any]
    """What the winner was trained with."""
    backbone: str
    weights: str
    """Where the pretrained weights came from."""

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for ``report.json``."""
        return {
            **self.verdict.to_dict(),
            "classes": self.classes.astype(object).where(self.classes.notna(), None).to_dict("records"),
            "finalists": self.finalists.astype(object).where(self.finalists.notna(), None).to_dict("records"),
            "label_suspects": self.suspects.to_dict("records"),
            "near_duplicates": [
                {"path": str(p.image.path), "other_path": str(p.other.path), "similarity": p.similarity}
                for p in self.duplicates
            ],
        }


def judge(run: Run, config: Config, asked_for: int | None, best: Path, address: str | None, say: Say) -> Judgement:
    """Find the winner, train and save its model, and judge it; the test split is opened when the winner is known.

    Args:
        asked_for: the trial to judge instead; the test split stays sealed.
        best: where the model goes.
    """
    found = load_images(run.folder)
    folds = config.data.folds
    images = found.cross_validated() if folds else found
    sealed = images.split("test") if asked_for is None else ()
    check_retraining(config, images)
    candidates = _candidates(run, images, pruned=not folds)
    recipes = trained_recipes(run)
    finalists, table, choice = _playoff(run, config, len(images.classes), asked_for, list(recipes), address, say)
    number = asked_for if asked_for is not None else choice.winner if choice else run.best

    say(f"retraining trial {number}")
    made = retrain(run, number, say)
    labels = {split: np.array([r.label for r in images.split(split)]) for split in ("val", "test")}
    # With folds, no image is left that the model did not see; each was judged in the search, by one that did not.
    logits = {"val": kept_logits(run, number) if folds else made.judge(images.split("val"))}
    temperature = fit_temperature(logits["val"], labels["val"])
    pooled = bool(sealed) and not folds and config.report.retrain_on == "train+val"
    openings: list[Opening] = []
    paired: Logits | None = None
    if sealed:
        openings = record_opening(run.folder, number, _digest(made), "train+val" if pooled else "train")
        paired = logits["test"] = made.judge(sealed)
    same_curve = made.same_curve
    if pooled:
        say("training on the validation images, too")
        made = retrain(run, number, say, images.pooled())
        logits["test"] = made.judge(sealed)
    predictions = pd.concat([predictions_table(images, split, each, temperature) for split, each in logits.items()])
    made.save(best, {"trial": number, "temperature": temperature, **_facts(predictions)})

    comparisons = []
    if asked_for is None:
        ours = None if paired is None or folds else paired.argmax(1) == labels["test"]
        comparisons = compare_with_recipes(run, number, recipes, images, candidates, ours)
    split = "test" if sealed else "val"
    before, after = (confidences(logits[split], labels[split], t) for t in (1, temperature))
    quoted = predictions[predictions["split"] == split]
    row = run.row(number)
    val = score_split(predictions, "val")
    assert val is not None
    verdict = Verdict(
        trial=number,
        asked_for=asked_for is not None,
        sealed=asked_for is not None and bool(images.split("test")),
        values=describe_values({key: row[key] for key in run.parameters if pd.notna(row[key])}),
        epochs=int(row["best_epoch"]),
        metric=run.metric,
        value=run.score(number),
        candidates=len(candidates.trials),
        val=val,
        test=score_split(predictions, "test"),
        estimate=bias_corrected(candidates, run.metric, number),
        baseline=majority(quoted),
        choice=choice,
        names={finalist.trial: finalist.name for finalist in finalists},
        passed_over=[finalist.name for finalist in finalists if finalist.trial not in set(table["trial"])],
        diverged=list(table.loc[table["score"].isna(), "name"].unique()) if finalists else [],
        seeds=config.report.seeds,
        comparisons=comparisons,
        recipe=recipes.get(number, ""),
        calibration=Calibration(temperature, calibration_error(*before), calibration_error(*after), split),
        openings=openings,
        same_curve=same_curve,
        precision=made.settings.train.precision,
        retrained_on="train+val" if pooled else "train",
        folds=folds,
    )
    return Judgement(
        verdict,
        found,
        predictions,
        class_scores(quoted, images.classes),
        (before[0], after[0], after[1]),
        table,
        _suspects(run, images),
        near_duplicates([*_judged_apart(found, config), sealed], made.training.backbone),
        {name: value for name, value in made.settings.train if value is not None},
        made.settings.backbone,
        made.training.backbone.weights_note,
    )


def _playoff(
    run: Run,
    config: Config,
    classes: int,
    asked_for: int | None,
    recipes: Sequence[int],
    address: str | None,
    say: Say,
) -> tuple[list[Finalist], pd.DataFrame, Choice | None]:
    if asked_for is not None or not config.report.finalists or not run.ranked():
        return [], pd.DataFrame(), None
    finalists = choose_finalists(
        run,
        config.report.finalists,
        recipes,
        lambda name: load_cached_backbone(name, config.model.weights, classes),
        pruned=not config.data.folds,
    )
    table = (
        _scores_by_fold(run, finalists) if config.data.folds else train_finalists(run, finalists, config, address, say)
    )
    return finalists, table, choose(table, {one.trial: one.cost for one in finalists}, run.metric)


def _scores_by_fold(run: Run, finalists: Sequence[Finalist]) -> pd.DataFrame:
    """What stands for other seeds where there are folds: a row a finalist and fold, ``seed`` being the fold."""
    curves = pd.read_csv(run.folder / CURVES).rename(columns={"fold": "seed", run.metric: "score"})
    wanted = pd.DataFrame([(one.trial, one.epochs, one.name) for one in finalists], columns=["trial", "epochs", "name"])
    table = curves.merge(wanted, left_on=["trial", "epoch"], right_on=["trial", "epochs"])
    return table[["trial", "name", "epochs", "seed", "score"]].assign(reason=None)


def _candidates(run: Run, images: ImageSet, pruned: bool) -> Candidates:
    """Every trial that was trained: pruned ones were candidates too. With folds, those did not judge all images."""
    numbers = run.ranked(pruned=pruned)
    labels = np.array([record.label for record in images.split("val")])
    return Candidates.from_logits(numbers, (kept_logits(run, n) for n in numbers), labels)


def _judged_apart(found: ImageSet, config: Config) -> list[tuple[Record, ...]]:
    """What was trained on, and what judged it: the splits, or the folds."""
    train = found.split("train")
    if config.data.folds is None:
        return [train, found.split("val")]
    return [tuple(train[place] for place in fold) for fold in found.folds(config.data.folds, config.search.seed)]


def _suspects(run: Run, images: ImageSet) -> pd.DataFrame:
    records = images.split("val")
    return label_suspects(
        (kept_logits(run, number) for number in run.ranked()),
        np.array([record.label for record in records]),
        [record.path for record in records],
        images.classes,
    )


def _facts(predictions: pd.DataFrame) -> dict[str, Any]:
    scores = {split: score_split(predictions, split) for split in ("val", "test")}
    return {"accuracy": {split: score.accuracy for split, score in scores.items() if score}}


def _digest(made: Retrained) -> str:
    """Of the weights that are judged."""
    sha = hashlib.sha256()
    for name, tensor in made.training.backbone.model.state_dict().items():
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()[:16]
