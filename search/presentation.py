"""A judgement as files: tables, figures, and the page that shows them."""

from pathlib import Path

from search.config import Config
from search.figures import draw_figures
from search.importances import parameter_importances
from search.judgement import Judgement
from search.page import write_page
from search.results import Run, write_table


def present(run: Run, config: Config, judgement: Judgement, out: Path) -> None:
    """Write ``predictions.csv``, ``figures/`` and ``report.html`` into ``out``."""
    verdict = judgement.verdict
    write_table(judgement.predictions, out / "predictions.csv")
    figures = draw_figures(
        run,
        judgement.predictions[judgement.predictions["split"] == "val"],
        judgement.images.classes,
        parameter_importances(run.folder, config),
        run.metric,
        verdict.trial,
        out / "figures",
    )
    steps = [
        ("Classify new images:", f"python -m search.predict {out} IMAGE_OR_FOLDER"),
        ("The model by itself is this folder:", str(out / "best")),
        ("Report on any other trial:", f"python -m search.report {run.folder} --trial N"),
    ]
    write_page(
        out / "report.html",
        f"Search {run.folder.name}",
        verdict.sentences(),
        _facts(config, judgement),
        steps,
        figures,
        run.trials,
        (run.folder / "config.yaml").read_text(),
        verdict.trial,
    )


def _facts(config: Config, judgement: Judgement) -> dict[str, object]:
    images, verdict = judgement.images, judgement.verdict
    counts = {split: len(images.split(split)) for split in ("train", "val", "test")}
    return {
        "data": str((config.record or {}).get("data", images.source)),
        "classes": ", ".join(images.classes),
        "images": ", ".join(f"{split} {count:,}" for split, count in counts.items() if count),
        "backbone": judgement.backbone,
        "validation accuracy": str(verdict.val),
        **({"test accuracy": str(verdict.test)} if verdict.test else {}),
        "trained for": f"{verdict.epochs} of the search's {judgement.settings['epochs']} epochs",
        **{name: value for name, value in judgement.settings.items() if name != "epochs"},
    }
