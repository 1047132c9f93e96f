"""The playoff: the finalists, trained again with other seeds, each as long as it can win."""

import math
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from statistics import fmean, stdev
from typing import Protocol

import numpy as np
import pandas as pd

from search.config import Config
from search.finalists import Finalist
from search.repetition import RayTrainer, Repetition, repeated
from search.results import Run, write_table
from trainable.settings import sign_of

FINALISTS = "finalists.csv"

COLUMNS = ("trial", "name", "epochs", "seed", "score", "val_accuracy", "val_loss", "seconds", "reason")

_DEARER = 2
"""How much costlier another finalist may be, to be trained while one's first seed is at work."""


def train_finalists(
    run: Run,
    finalists: Sequence[Finalist],
    config: Config,
    address: str | None,
    say: Callable[[str], None],
) -> pd.DataFrame:
    """Train each finalist up to ``report.seeds`` times on Ray, the cheapest first, and keep what came of it in
    ``finalists.csv`` (`COLUMNS`), a row a training. Rows that are there already stay.

    A finalist that cannot be expected to win any more (`hopeless`) is not trained further; so whoever wins has been
    through all seeds.
    """
    kept = _known(run.folder / FINALISTS)
    queue = [
        (finalist, repetition)
        for finalist in sorted(finalists, key=lambda one: (one.cost, one.trial))
        for repetition in range(1, config.report.seeds + 1)
        if not _has(kept, finalist, repeated(run.folder, finalist.trial, repetition).train.seed)
    ]

    def worth_it(finalist: Finalist) -> bool:
        return not hopeless(_of(kept, finalists), finalist, finalists, config.report.seeds, run.metric)

    def keep(row: dict[str, object]) -> None:
        nonlocal kept
        new = pd.DataFrame([row], columns=COLUMNS)
        kept = new if kept.empty else pd.concat([kept, new], ignore_index=True)
        write_table(kept, run.folder / FINALISTS)

    if any(worth_it(finalist) for finalist, _ in queue):
        say(f"up to {len(finalists)} finalists are trained again with other seeds, to tell skill from luck")
        with RayTrainer(run, config, address, say) as trainer:
            race(queue, trainer, worth_it, keep, {*_of(kept, finalists)["trial"]})
    return _of(kept, finalists)


def race(
    queue: list[Repetition],
    trainer: "Trainer",
    worth_it: Callable[[Finalist], bool],
    keep: Callable[[dict[str, object]], None],
    told: AbstractSet[int] = frozenset(),
) -> None:
    """Train what is in the queue, in its order, as far as it is worth it.

    A finalist's second seed waits for its first one, where there is another finalist to train that is not much
    costlier. Where it does not wait, and the first turns out not to be good enough, it is given up. What is not worth
    it, or was given up, stays in the queue: what others do, or its own first seed, may change that.

    Args:
        queue: finalists, and which repetition of each.
        keep: is given the row of each training that has ended.
        told: the trials of finalists of which a training had ended before.
    """
    order = {one: place for place, one in enumerate(queue)}
    running: list[Repetition] = []
    while True:
        while trainer.has_room and (worthy := [one for one in queue if worth_it(one[0])]):
            chosen = _next(worthy, {finalist.trial for finalist, _ in running} - told)
            queue.remove(chosen)
            running.append(chosen)
            trainer.start(*chosen)
        if not trainer.busy:
            return
        ended, row = trainer.wait()
        running.remove(ended)
        told = told | {ended[0].trial}
        keep(row)
        for one in [*running]:
            if one[0].trial in told and not worth_it(one[0]) and trainer.give_up(*one):
                running.remove(one)
                queue.append(one)
        queue.sort(key=order.__getitem__)


def _next(worthy: Sequence[Repetition], untold: AbstractSet[int]) -> Repetition:
    limit = _DEARER * worthy[0][0].cost
    return next((one for one in worthy if one[0].trial not in untold and one[0].cost <= limit), worthy[0])


class Trainer(Protocol):
    """Trains finalists, some at a time."""

    @property
    def busy(self) -> bool: ...

    @property
    def has_room(self) -> bool: ...

    def start(self, finalist: Finalist, repetition: int) -> None: ...

    def wait(self) -> tuple[Repetition, dict[str, object]]:
        """The next one that ends, and its row."""
        ...

    def give_up(self, finalist: Finalist, repetition: int) -> bool:
        """End a training, without a row; False where it has just ended, and so will have one."""
        ...


def hopeless(table: pd.DataFrame, finalist: Finalist, finalists: Sequence[Finalist], seeds: int, metric: str) -> bool:
    """Whether a finalist cannot be expected to win any more; the leader is the best of the others that have been
    through all seeds.

    One that was not trained again, and is no cheaper than the leader, would have to be better by more than a standard
    error: it is given up where its score in the search is not, were it to lose as much as the others lost, on average,
    when they were trained again. They were finalists for their scores, which flatter them all. One that was trained is
    given up where its mean so far is below the leader's worst seed, which is at least one standard error below the
    leader's mean; or where it diverged.

    Args:
        table: a row a training of the finalists: trial, score.
        finalists: all of them.
    """
    sign = sign_of(metric)
    known = {one.trial: one for one in finalists}
    scores: dict[int, list[float]] = {}
    for trial, score in zip(table["trial"], table["score"].astype(float), strict=True):
        scores.setdefault(trial, []).append(sign * score)
    own = scores.pop(finalist.trial, [])
    whole = [
        each
        for trial, each in scores.items()
        if len(each) >= seeds and not math.isnan(sum(each)) and (own or known[trial].cost <= finalist.cost)
    ]
    leader = max(whole, key=fmean, default=[-math.inf])
    if not own:
        lost = [sign * known[trial].score - fmean(each) for trial, each in scores.items() if not math.isnan(sum(each))]
        expected = sign * finalist.score - max(fmean(lost or [0]), 0)
        error = stdev(leader) / math.sqrt(len(leader)) if len(leader) > 1 else 0
        return expected < fmean(leader) + error
    return math.isnan(sum(own)) or fmean(own) < min(leader)


def _known(file: Path) -> pd.DataFrame:
    return pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=COLUMNS)


def _of(table: pd.DataFrame, finalists: Sequence[Finalist]) -> pd.DataFrame:
    """The rows of these finalists; an earlier report can have had others."""
    wanted = {(finalist.trial, finalist.epochs) for finalist in finalists}
    theirs = [pair in wanted for pair in zip(table["trial"], table["epochs"], strict=True)]
    return table[np.array(theirs, bool)].reset_index(drop=True)


def _has(table: pd.DataFrame, finalist: Finalist, seed: int) -> bool:
    same = (table["trial"] == finalist.trial) & (table["epochs"] == finalist.epochs) & (table["seed"] == seed)
    return bool(same.any())
