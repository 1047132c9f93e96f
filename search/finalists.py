"""The finalists: what looked best, and the tutorial's recipes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search.folder import read_settings
from search.results import Run

if TYPE_CHECKING:
    from trainable.backbone import Backbone


@dataclass(frozen=True)
class Finalist:
    """A configuration that could win."""

    trial: int
    name: str
    """The recipe's, or the trial's."""
    epochs: int
    """For which it is trained: to the best epoch that the search found."""
    cost: float
    """Floating-point operations of that training, the frozen stages' apart, since those are shared."""
    score: float
    """Of the metric, in the search."""


def choose_finalists(
    run: Run, count: int, recipes: Sequence[int], backbones: Callable[[str], "Backbone"], *, pruned: bool
) -> list[Finalist]:
    """The ``count`` best trials, and those of the recipes.

    Args:
        pruned: whether those that were stopped early count, too: a later epoch is what they were stopped for, and it is
            their best one that would be trained again.
    """
    ranked = [number for number in run.ranked(pruned=pruned) if run.row(number)["state"] != "FAIL"]
    numbers = dict.fromkeys([*ranked[:count], *(number for number in recipes if number in ranked)])
    return [_finalist(run, number, backbones) for number in numbers]


def _finalist(run: Run, number: int, backbones: Callable[[str], "Backbone"]) -> Finalist:
    settings, row = read_settings(run.folder, number), run.row(number)
    backbone = backbones(settings.backbone)
    # Forward, and twice as much backward (Kaplan et al., "Scaling Laws for Neural Language Models", 2020, section 2.1).
    flops = 3 * sum(stage.flops for stage in backbone.stages[backbone.depth(settings.train.freeze_depth) :])
    name = row["first"] if isinstance(row["first"], str) else f"trial {number}"
    epochs = int(row["best_epoch"])
    return Finalist(number, name, epochs, float(flops * epochs), run.score(number))
