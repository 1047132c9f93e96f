"""The verdict in plain words."""

from search.choice import Choice
from search.comparison import Comparison
from search.verdict import Verdict

_IMAGES = {"test": "sealed test images", "val": "validation images"}


def paragraphs(verdict: Verdict) -> list[str]:
    """What the report says, a paragraph an item; the first two say what matters."""
    if verdict.asked_for:
        kept = ["Sealed test images are kept for the best trial."] if verdict.sealed else []
        first = [_asked_for(verdict), *kept]
    else:
        first = [_quality(verdict), _worth(verdict), *_tests(verdict), *_finalists(verdict), _optimism(verdict)]
    return [*first, *_calibration(verdict), *_training(verdict), *_openings(verdict), *_arithmetic(verdict)]


def _asked_for(verdict: Verdict) -> str:
    said = f"This is trial {verdict.trial}, which you asked for ({verdict.values}). "
    if verdict.folds:
        return f"{said}In the search, the models of its folds classified {verdict.val} of the images correctly."
    return (
        f"{said}Trained again for {_epochs(verdict)}, it classifies {verdict.val} of the validation images correctly."
    )


def _quality(verdict: Verdict) -> str:
    guess = f"always answering “{verdict.baseline.answer}” would be right in {verdict.baseline.accuracy:.1%}"
    if verdict.honest <= verdict.baseline.accuracy:
        guess += ", which is no less"
    use = f"Use trial {verdict.trial} ({verdict.values}, {_epochs(verdict)})"
    if verdict.test is not None:
        quote = (
            "They played no part in the search, so this is the figure to quote"
            if verdict.models_opened_for < 2
            else "They played no part in the search, but another model was judged by them before, as said below"
        )
        return f"{use}: it classifies {verdict.test} of the sealed test images correctly. {quote}; {guess}."
    return (
        f"{use}, and expect it to classify {verdict.estimate} of new images correctly; {guess}. There is no test "
        "split: this is an estimate from the validation images (BBC-CV), which allows for the choice."
    )


def _worth(verdict: Verdict) -> str:
    compared = verdict.comparisons
    if verdict.recipe:
        return (
            f"Nothing that the search tried is worth more than the tutorial's recipe “{verdict.recipe}”: it is the "
            "winner itself."
        )
    if not compared:
        return "There is none of the tutorial's recipes to compare with: none was trained to its end."
    judged = f"on the same {compared[0].images:,} {_IMAGES[compared[0].split]}"
    each = " and ".join(_difference(one) for one in compared)
    better = [one.name for one in compared if (one.proven or 0) > 0]
    worse = [one.name for one in compared if (one.proven or 0) < 0]
    choice = "" if compared[0].after_choice is None else f" and than the choice among {verdict.candidates} explains"
    if worse:
        return f"The search was not worth it, {_quoted(worse)} did better: {judged} the chosen trial is {each}."
    if len(better) == len(compared):
        return f"The search was worth it: {judged} it is {each}. That is more than chance{choice}."
    if better:
        beat = f"The search beat the tutorial's recipe {_quoted(better)}, but not both for certain"
        return f"{beat}: {judged} it is {each}."
    untold = "Whether the search bought anything over the tutorial's recipes cannot be told"
    return f"{untold}: {judged} it is {each}, which can be chance."


def _difference(comparison: Comparison) -> str:
    better = "more" if comparison.difference >= 0 else "less"
    return f"{abs(comparison.difference) * 100:.1f} points {better} accurate than “{comparison.name}”"


def _tests(verdict: Verdict) -> list[str]:
    compared = verdict.comparisons
    if not compared or verdict.recipe:
        return []
    each = "; ".join(_test(one) for one in compared)
    decides = (
        "The test decides, with p < 0.05; on few images such an interval is too narrow."
        if compared[0].after_choice is None
        else "Both p must be below 0.05: the winner was chosen on these images, which flatter it."
    )
    return [f"These differences in points, with their 95 % intervals and the exact McNemar test: {each}. {decides}"]


def _test(comparison: Comparison) -> str:
    after = comparison.after_choice
    choice = "" if after is None else f", and allowing for the choice p = {after:.2g} (White's reality check)"
    return (
        f"over “{comparison.name}” {comparison.difference * 100:+.1f} ({comparison.low * 100:+.1f} to "
        f"{comparison.high * 100:+.1f}), p = {comparison.chance:.2g}{choice}"
    )


def _finalists(verdict: Verdict) -> list[str]:
    if not verdict.names:
        return []
    trained = len(verdict.names) - len(verdict.passed_over)
    were = f"{trained} finalist{'s were' if trained != 1 else ' was'}"
    seeds = f"{verdict.seeds} other seed{'s' if verdict.seeds != 1 else ''}"
    again = f"trained again with up to {seeds}, as long as they could be expected to win"
    said = [f"{were} {f'scored on {verdict.folds} folds' if verdict.folds else again}."]
    if verdict.passed_over:
        said.append(
            "Not trained again, being no cheaper than the best of these, and not expected to be better by a standard "
            f"error, by what the others lost when they were trained again: {', '.join(verdict.passed_over)}."
        )
    if verdict.diverged:
        said.append(f"Training failed with some seed, so that it could not win: {', '.join(verdict.diverged)}.")
    if verdict.choice is None:
        said.append("So nobody won, and the best trial of the search was taken: with another seed it may fail, too.")
    else:
        said.append(_choice(verdict, verdict.choice, trained))
    return [" ".join(said)]


def _choice(verdict: Verdict, choice: Choice, trained: int) -> str:
    reached = (
        f"{_capital(verdict.names[choice.winner])} reached a mean validation {_spoken(verdict.metric)} of "
        f"{choice.mean:.4f}"
    )
    others = [verdict.names[trial] for trial in choice.tied if trial != choice.winner]
    if others:
        are = f"{', '.join(others)} {'are' if len(others) > 1 else 'is'}"
        within = f"within one standard error ({choice.error:.4f}) of the best mean, {choice.best_mean:.4f}"
        return f"{reached}; {are} {within}, too, but no cheaper to train."
    if trained < 2:
        return f"{reached}."
    if verdict.seeds < 2 and not verdict.folds:
        return f"{reached}, the best; by one seed each, skill is not told from luck."
    return f"{reached}, the best by more than one standard error ({choice.error:.4f})."


def _optimism(verdict: Verdict) -> str:
    all_folds = " that went through all folds" if verdict.folds else ""
    higher = f"{abs(verdict.optimism) * 100:.1f} points {'higher' if verdict.optimism >= 0 else 'lower'}"
    of = f"Of {verdict.candidates} configuration{'s' if verdict.candidates != 1 else ''}{all_folds}"
    chosen = f"it was chosen by its validation {_spoken(verdict.metric)}: {verdict.value:.4f} in the search"
    return (
        f"{of} {chosen}, at its best epoch. Its validation accuracy, {verdict.val}, is {higher} than the honest figure."
    )


def _calibration(verdict: Verdict) -> list[str]:
    calibration = verdict.calibration
    if calibration.temperature == 1:
        return []
    sure = "too sure" if calibration.temperature > 1 else "not sure enough"
    return [
        f"On the validation images it was {sure} of itself, so its logits are divided by {calibration.temperature:.2f} "
        f"(temperature scaling). The expected calibration error on the {_IMAGES[calibration.split]} goes from "
        f"{calibration.before:.1%} to {calibration.after:.1%}."
    ]


def _training(verdict: Verdict) -> list[str]:
    if verdict.retrained_on == "train+val":
        return [
            "The model that is handed over was trained on the validation images, too. Validation scores, and the "
            "comparison with the recipes, are those of its configuration trained on the training images alone."
        ]
    if verdict.folds:
        return [
            f"Validation is cross-validation in {verdict.folds} folds: each image is judged by a model that did not "
            "see it. The model that is handed over was trained on all of them."
        ]
    return []


def _openings(verdict: Verdict) -> list[str]:
    openings, models = verdict.openings, verdict.models_opened_for
    if len(openings) < 2:
        return []
    return [
        f"The sealed test images have been opened {len(openings)} times, for {models} model"
        f"{'s' if models > 1 else ''}; the first time on {openings[0].time}. "
        + (
            "Whatever was decided after that, the figure above no longer judges it fairly."
            if models > 1
            else "It was the same model each time, so the figure stands."
        )
    ]


def _arithmetic(verdict: Verdict) -> list[str]:
    said = []
    if verdict.same_curve is not None:
        said.append(
            "Retraining gave the very numbers of the search, epoch by epoch."
            if verdict.same_curve
            else "Retraining did not give exactly the numbers of the search: other hardware, another thread count, "
            "and other versions of the libraries or of this program add up floating-point numbers in another order."
        )
    if verdict.precision == "bf16" and (verdict.test is not None or not verdict.folds):
        said.append(
            "In the search the frozen stages compute in bf16; the model judged here computes in fp32, and can differ "
            "in an image."
        )
    return said


def _epochs(verdict: Verdict) -> str:
    return f"{verdict.epochs} epoch" + ("s" if verdict.epochs != 1 else "")


def _quoted(names: list[str]) -> str:
    return " and ".join(f"“{name}”" for name in names)


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]


def _spoken(metric: str) -> str:
    return metric.removeprefix("val_").replace("_", " ")
