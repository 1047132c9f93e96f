"""The tutorial's recipes among the trials of a run, and the winner beside them."""

import numpy as np
from numpy.typing import NDArray

from search.comparison import Comparison, compare
from search.estimate import Candidates
from search.plan import MOVED, RECIPES
from search.results import Run
from search.retrain import kept_logits, load_kept
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
        candidates: what the winner was chosen from by the validation images.
        ours: whether the winner is right on each test image, where they were opened; else validation images decide.
    """
    split = "val" if ours is None else "test"
    labels = np.array([record.label for record in images.split(split)])

    def correct(trial: int) -> NDArray[np.bool_] | None:
        if split == "val":
            return np.asarray(kept_logits(run, trial).argmax(1) == labels)
        kept = load_kept(run, trial)
        return None if kept is None else np.asarray(kept.judge(images.split("test")).argmax(1) == labels)

    mine = correct(number) if ours is None else ours
    others = {trial: correct(trial) for trial in recipes if trial != number}
    assert mine is not None
    chosen_from = candidates.correct if ours is None else None
    return [
        compare(recipes[trial], trial, split, mine, theirs, chosen_from)
        for trial, theirs in others.items()
        if theirs is not None
    ]
