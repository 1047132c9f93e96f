"""A judgement as files: tables, figures, the page that shows them, and the model's card."""

from pathlib import Path
from typing import Any

import pandas as pd

from search.card import model_card
from search.config import Config
from search.figures import Figure, draw_figures
from search.finalists_chart import Finalists
from search.folder import SETTINGS, trial_folder
from search.importances import parameter_importances
from search.judgement import Judgement
from search.page import write_page
from search.reliability import Confidences, Reliability
from search.results import Run, write_table
from search.table import Table
from search.wording import paragraphs

_MISTAKES = 20


def present(run: Run, config: Config, judgement: Judgement, out: Path) -> None:
    """Write ``predictions.csv``, ``figures/``, ``report.html`` and the model's ``README.md`` into ``out``."""
    verdict = judgement.verdict
    said = paragraphs(verdict)
    write_table(judgement.predictions, out / "predictions.csv")
    record = config.record or {}
    card = model_card(
        f"Classifier of {', '.join(judgement.images.classes)}",
        data=str(record.get("data", judgement.images.source)),
        counts=_counts(judgement),
        backbone=judgement.backbone,
        weights=judgement.weights,
        epochs=verdict.epochs,
        settings={name: value for name, value in judgement.settings.items() if name != "epochs"},
        verdict=said,
        temperature=verdict.calibration.temperature,
    )
    (out / "best" / "README.md").write_text(card, encoding="utf-8")
    write_page(
        out / "report.html",
        f"Search {run.folder.name}",
        said,
        _facts(judgement),
        [
            ("Classify new images:", f"python -m search.predict {out} IMAGE_OR_FOLDER"),
            ("As one file, for ONNX Runtime:", f"python -m search.export {out} --format onnx"),
            ("The model by itself, with a card that says what it can do, is this folder:", str(out / "best")),
            ("Report on any other trial:", f"python -m search.report {run.folder} --trial N"),
        ],
        _figures(run, config, judgement, out),
        run.trials,
        (run.folder / "config.yaml").read_text(),
        verdict.trial,
        lead=f"{judgement.backbone} on {record.get('data', judgement.images.source)}",
        tables=_tables(judgement),
        versions=record.get("versions", {}),
        reproduce=[
            (
                "Train the chosen configuration again, in one process:",
                f"python -m trainable.trial --settings {trial_folder(run.folder, verdict.trial) / SETTINGS}",
            ),
            ("Search again:", f"python -m search.run --space {run.folder / 'config.yaml'}"),
        ],
    )


def _figures(run: Run, config: Config, judgement: Judgement, out: Path) -> list[Figure]:
    verdict = judgement.verdict
    before, after, correct = judgement.confidences
    choice = verdict.choice
    return draw_figures(
        run,
        judgement.predictions[judgement.predictions["split"] == "val"],
        judgement.images.classes,
        parameter_importances(run.folder, config),
        verdict.trial,
        out / "figures",
        reliability=Reliability(
            Confidences(before, correct),
            Confidences(after, correct),
            verdict.calibration.temperature,
            {"val": "validation", "test": "test"}[verdict.calibration.split],
        ),
        finalists=Finalists(
            judgement.finalists, choice.winner, choice.tied, run.metric, "fold" if verdict.folds else "seed"
        )
        if choice
        else None,
    )


def _tables(judgement: Judgement) -> list[Table]:
    predictions = judgement.predictions
    wrong = predictions[~predictions["correct"].astype(bool)].sort_values("confidence", ascending=False)
    return [
        Table(
            "Classes",
            f"On the {judgement.verdict.calibration.split} images: precision is the share of those called so that are, "
            "recall the share of those that are which are called so, support their number.",
            judgement.classes,
        ),
        Table(
            "Most confident mistakes",
            "Wrong labels and odd images come first here. Look at them before you change anything else.",
            wrong.head(_MISTAKES)[["split", "path", "class", "predicted", "confidence"]],
        ),
        Table(
            "Labels to look at",
            "Validation images that most trials agree to call something else than their label, though none was trained "
            "on them (confident learning).",
            judgement.suspects,
        ),
        Table(
            f"Near duplicates across {'folds' if judgement.verdict.folds else 'splits'}",
            "Images that look nearly like one that was trained on where they judge, by the pretrained network's "
            "features. They make the scores look better than they are on new images.",
            pd.DataFrame(
                [
                    [str(pair.image.path), pair.image.split, str(pair.other.path), pair.other.split, pair.similarity]
                    for pair in judgement.duplicates
                ],
                columns=["path", "split", "other_path", "other_split", "similarity"],
            ),
        ),
    ]


def _counts(judgement: Judgement) -> dict[str, dict[str, int]]:
    images = judgement.images
    numbers = {split: dict.fromkeys(images.classes, 0) for split in ("train", "val", "test") if images.split(split)}
    for image in images.records:
        numbers[image.split][images.classes[image.label]] += 1
    return numbers


def _facts(judgement: Judgement) -> dict[str, Any]:
    images, verdict = judgement.images, judgement.verdict
    counts = {split: len(images.split(split)) for split in ("train", "val", "test")}
    return {
        "classes": ", ".join(images.classes),
        "images": ", ".join(f"{split} {count:,}" for split, count in counts.items() if count),
        "backbone": f"{judgement.backbone}, {judgement.weights}",
        "validation accuracy": str(verdict.val),
        **({"test accuracy": str(verdict.test)} if verdict.test else {}),
        "trained for": f"{verdict.epochs} of the search's {judgement.settings['epochs']} epochs",
        **{name: value for name, value in judgement.settings.items() if name != "epochs"},
    }
