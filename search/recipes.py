"""The tutorial's recipes among the trials of a run, and the winner beside them."""

import numpy as np
from numpy.typing import NDArray

from search.comparison import Comparison, compare
from search.estimate import Candidates
from search.plan import MOVED, RECIPES
from search.results import Run
from search.retrain import load_kept
from trainable.images import ImageSet


def trained_recipes(run: Run) -> dict[int, str]:
    """The trials that are the tutorial's recipes, with their names; those that ran to their end."""
    named = [recipe + moved for recipe in RECIPES for moved in ("", MOVED)]
    rows = run.trials[run.trials["first"].isin(named) & (run.trials["state"] == "COMPLETE")]
    return dict(zip(rows["trial"].tolist(), rows["first"], strict=True))


def compare_with_recipes(
    run: Run,
    number: int,
    recipes: dict[int, str],
    images: ImageSet,
    candidates: Candidates,
    ours: NDArray[np.bool_] | None,
) -> list[Comparison]:
    """The winner against each recipe, both as the search trained them, with the weights of their best epochs.

    Args:
        candidates: what the winner was chosen from by the validation images; the recipes are among them.
        ours: whether the winner is right on each test image, where they were opened; else validation images decide.
    """
    split = "val" if ours is None else "test"

    def correct(trial: int) -> NDArray[np.bool_] | None:
        if ours is None:
            return candidates.correct[candidates.trials.index(trial)]
        kept, test = load_kept(run, trial), images.split("test")
        return None if kept is None else np.asarray(kept.judge(test).argmax(1) == [record.label for record in test])

    mine = correct(number) if ours is None else ours
    others = {trial: correct(trial) for trial in recipes if trial != number}
    assert mine is not None
    chosen_from = candidates.correct if ours is None else None
    return [
        compare(recipes[trial], trial, split, mine, theirs, chosen_from)
        for trial, theirs in others.items()
        if theirs is not None
    ]
