"""The report of a run: the chosen configuration trained again, its predictions, the figures, the verdict.

python -m search.report results/RUN
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search.guard import guard
from trainable.errors import InputError

if TYPE_CHECKING:
    from search.config import Config
    from search.estimate import Candidates
    from search.results import Run
    from search.retrain import Retrained
    from search.verdict import Verdict


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m search.report",
        description="Retrain a run's best configuration, save the model, and write report.html.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of a run")
    parser.add_argument(
        "--trial", metavar="N", type=int, help="another trial than the best; its report goes into the trial's folder"
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    options = parser.parse_args(arguments)
    return guard(lambda: _report(options), options.debug)


def _report(options: argparse.Namespace) -> int:
    from search.folder import CONFIG, LOG, holding
    from search.journal import Journal

    if not (options.run / CONFIG).is_file():
        raise InputError(f"RUN must be the folder of a run, with a {CONFIG} in it; got {options.run}")
    with holding(options.run):
        return make_report(options.run, options.trial, Journal(options.run / LOG))


def make_report(folder: Path, trial: int | None, say: Callable[[str], None]) -> int:
    """Write ``best/``, ``figures/``, ``predictions.csv``, ``report.json`` and ``report.html``; 0, an exit code.

    Args:
        trial: the trial to retrain; None: the best. Of another than the best, all goes into the trial's own folder, and
            the sealed test split is not opened for it.

    Raises:
        InputError: no such run or trial, or none that was trained.
    """
    from search.config import load_config
    from search.results import CURVES, TRIALS, load_run
    from trainable.settings import METRICS

    folder = folder.resolve()
    run = load_run(folder)
    config = load_config(folder / "config.yaml")
    if config.data.folds is not None:
        say(f"a search with folds has no report yet: its results are in {folder / TRIALS} and {folder / CURVES}")
        return 0
    maximize = METRICS[config.search.metric] == "maximize"
    complete = (run.trials["state"] == "COMPLETE").any()
    best = run.best(maximize) if trial is None or complete else None
    number = best if trial is None else _check(run, trial)
    assert number is not None  # else `best` raised
    from search.folder import trial_folder
    from search.retrain import retrain

    out = folder if number == best else trial_folder(folder, number) / "report"
    say(f"retraining trial {number}")
    made = retrain(run, number, out / "best", say, splits=("val", "test") if number == best else ("val",))
    made.predictions.to_csv(out / "predictions.csv", index=False)
    verdict = _judge(run, number, best, config, made)
    (out / "report.json").write_text(json.dumps(verdict.to_dict(), indent=2))
    _write_page(folder, out, run, config, made, verdict)
    for sentence in verdict.sentences():
        say(sentence)
    say(f"report: {out / 'report.html'}")
    say(f"to classify new images: python -m search.predict {out} IMAGE|FOLDER…")
    return 0


def _check(run: "Run", trial: int) -> int:
    trained = run.trials.loc[run.trials["epochs"] > 0, "trial"].tolist()
    if trial not in trained:
        raise InputError(
            f"--trial must be one that was trained at least one epoch: {', '.join(map(str, trained))}; got {trial}"
        )
    return trial


def _judge(run: "Run", number: int, best: int | None, config: "Config", made: "Retrained") -> "Verdict":
    from search.estimate import bias_corrected, mcnemar
    from search.plan import MOVED, RECIPES
    from search.verdict import Recipe, Verdict, score_split

    metric = config.search.metric
    trials = run.trials
    candidates = _candidates(run, metric, made)
    correct = dict(zip(candidates.trials, candidates.correct, strict=True))
    named = [recipe + moved for recipe in RECIPES for moved in ("", MOVED)]
    recipes = trials[trials["first"].isin(named) & (trials["state"] == "COMPLETE")]
    val = score_split(made.predictions, "val")
    assert val is not None
    return Verdict(
        trial=number,
        best=best,
        epochs=made.epochs,
        metric=metric,
        val=val,
        test=score_split(made.predictions, "test"),
        estimate=bias_corrected(candidates, metric),
        recipes=[
            Recipe(name, trial, value, mcnemar(correct[number], correct[trial]))
            for name, trial, value in zip(recipes["first"], recipes["trial"], recipes[metric], strict=True)
        ],
        value=trials.loc[trials["trial"] == number, metric].item(),
        same_curve=made.same_curve,
        precision=made.settings.train.precision,
        candidates=len(candidates.trials),
    )


def _candidates(run: "Run", metric: str, made: "Retrained") -> "Candidates":
    """Every trial that was trained, the best first: pruned ones were candidates too."""
    import numpy as np

    from search.estimate import Candidates
    from search.folder import trial_folder
    from trainable.settings import METRICS
    from trainable.training import LOGITS

    ranked = run.trials[run.trials["epochs"] > 0].sort_values(
        [metric, "val_loss", "seconds"], ascending=[METRICS[metric] == "minimize", True, True]
    )
    numbers = ranked["trial"].tolist()
    labels = np.array([record.label for record in made.images.split("val")])
    return Candidates.from_logits(numbers, (np.load(trial_folder(run.folder, n) / LOGITS) for n in numbers), labels)


def _write_page(folder: Path, out: Path, run: "Run", config: "Config", made: "Retrained", verdict: "Verdict") -> None:
    from search.figures import draw_figures
    from search.page import write_page

    validation = made.predictions[made.predictions["split"] == "val"]
    figures = draw_figures(
        run,
        validation,
        made.images.classes,
        _importances(folder, config),
        config.search.metric,
        verdict.trial,
        out / "figures",
    )
    record = config.record or {}
    facts: dict[str, object] = {
        "data": str(record.get("data", made.images.source)),
        "classes": ", ".join(made.images.classes),
        "images": ", ".join(f"{split} {len(made.images.split(split)):,}" for split in ("train", "val", "test")),
        "backbone": made.settings.backbone,
        "validation accuracy": str(verdict.val),
        **({"test accuracy": str(verdict.test)} if verdict.test else {}),
        "trained for": f"{made.epochs} of the search's {made.settings.train.epochs} epochs",
        **{name: value for name, value in made.settings.train if name != "epochs" and value is not None},
    }
    steps = [
        ("Classify new images:", f"python -m search.predict {out} IMAGE_OR_FOLDER"),
        ("The model by itself is this folder:", str(out / "best")),
        ("Report on another trial:", f"python -m search.report {folder} --trial N"),
    ]
    write_page(
        out / "report.html",
        f"Search {folder.name}",
        verdict.sentences(),
        facts,
        steps,
        figures,
        run.trials,
        (folder / "config.yaml").read_text(),
        verdict.trial,
    )


def _importances(folder: Path, config: "Config") -> dict[str, float]:
    """PED-ANOVA importances (Watanabe, Bansal, Hutter, *IJCAI* 2023) over all trials, each with its best epoch's value,
    pruned ones too; empty where there are too few to say anything."""
    import optuna

    from search.folder import study_address
    from search.study import best_value, open_study, real_trials

    study = open_study(*study_address(folder, config), config.search.metric, resume=True)
    scored = optuna.create_study(direction=study.direction)
    for trial in real_trials(study):
        value = best_value(trial, config.search.metric)
        if value is not None and trial.params:
            scored.add_trial(optuna.create_trial(params=trial.params, distributions=trial.distributions, value=value))
    if len({trial.value for trial in scored.trials}) < 4:
        return {}
    return dict(optuna.importance.get_param_importances(scored))


if __name__ == "__main__":
    sys.exit(main())
