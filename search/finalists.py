"""The finalists: what looked best, and the tutorial's recipes, trained again with other seeds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from search.config import Config
from search.folder import read_settings, trial_folder
from search.results import Run, write_table
from trainable.settings import TrialSettings

if TYPE_CHECKING:
    from trainable.backbone import Backbone

FINALISTS = "finalists.csv"

COLUMNS = ("trial", "name", "epochs", "seed", "score", "val_accuracy", "val_loss", "seconds", "reason")


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


def choose_finalists(
    run: Run, count: int, recipes: Sequence[int], backbones: Callable[[str], "Backbone"]
) -> list[Finalist]:
    """The ``count`` best complete trials, and those of the recipes."""
    ranked = run.ranked()
    numbers = dict.fromkeys([*ranked[:count], *(number for number in recipes if number in ranked)])
    return [_finalist(read_settings(run.folder, number), number, run.row(number), backbones) for number in numbers]


def _finalist(
    settings: TrialSettings, number: int, row: "pd.Series", backbones: Callable[[str], "Backbone"]
) -> Finalist:
    backbone = backbones(settings.backbone)
    # Forward, and twice as much backward (Kaplan et al., "Scaling Laws for Neural Language Models", 2020, section 2.1).
    flops = 3 * sum(stage.flops for stage in backbone.stages[backbone.depth(settings.train.freeze_depth) :])
    name = row["first"] if isinstance(row["first"], str) else f"trial {number}"
    return Finalist(number, name, int(row["best_epoch"]), float(flops * int(row["best_epoch"])))


def train_finalists(
    run: Run,
    finalists: Sequence[Finalist],
    config: Config,
    address: str | None,
    say: Callable[[str], None],
) -> pd.DataFrame:
    """Train each finalist ``report.seeds`` times on Ray, and keep what came of it in ``finalists.csv`` (`COLUMNS`), a
    row a training. Rows that are there already stay."""
    table = _known(run.folder / FINALISTS)
    jobs = [
        (finalist, repetition)
        for finalist in sorted(finalists, key=lambda one: -one.cost)  # the longest first
        for repetition in range(1, config.report.seeds + 1)
        if not _has(table, finalist, repeated(run.folder, finalist.trial, repetition).train.seed)
    ]
    if jobs:
        say(f"finalists: {len(jobs)} trainings, to tell skill from luck")
        for row in _train(run, jobs, config, address, say):
            table = pd.concat([table, pd.DataFrame([row], columns=COLUMNS)], ignore_index=True)
            write_table(table, run.folder / FINALISTS)
    wanted = {(finalist.trial, finalist.epochs) for finalist in finalists}
    return table[[pair in wanted for pair in zip(table["trial"], table["epochs"], strict=True)]].reset_index(drop=True)


def repeated(run: Path, number: int, repetition: int) -> TrialSettings:
    """The settings of a trial with another seed, in a folder of its own; the views stay the same."""
    settings = read_settings(run, number)
    seed = settings.train.seed + repetition
    return settings.model_copy(
        update={
            "train": settings.train.model_copy(update={"seed": seed}),
            "folder": trial_folder(run, number) / f"seed-{seed}",
        }
    )


def _train(
    run: Run,
    jobs: Sequence[tuple[Finalist, int]],
    config: Config,
    address: str | None,
    say: Callable[[str], None],
) -> Iterator[Mapping[str, object]]:
    import ray

    from search.experiment import WORKER_RETRIES, ray_cluster
    from trainable.repeat import train_for

    with ray_cluster(config.resources, address, say) as cluster:
        task = ray.remote(num_cpus=cluster.cpus_per_trial, num_gpus=cluster.gpus_per_trial, max_retries=WORKER_RETRIES)(
            train_for
        )
        waiting = {
            task.remote(repeated(run.folder, finalist.trial, repetition), finalist.epochs): (finalist, repetition)
            for finalist, repetition in jobs
        }
        while waiting:
            [done], _ = ray.wait(list(waiting))
            finalist, repetition = waiting.pop(done)
            row = _row(finalist, repeated(run.folder, finalist.trial, repetition), ray.get(done), config.search.metric)
            outcome = row["reason"] or f"{config.search.metric} {row['score']:.4f}"
            say(f"finalists: {len(jobs) - len(waiting)} of {len(jobs)}, {finalist.name}, seed {row['seed']}: {outcome}")
            yield row


def _row(
    finalist: Finalist, settings: TrialSettings, made: Mapping[str, float] | str, metric: str
) -> dict[str, object]:
    known = {} if isinstance(made, str) else made
    return {
        "trial": finalist.trial,
        "name": finalist.name,
        "epochs": finalist.epochs,
        "seed": settings.train.seed,
        "score": known.get(metric),
        **{name: known.get(name) for name in ("val_accuracy", "val_loss", "seconds")},
        "reason": made if isinstance(made, str) else None,
    }


def _known(file: Path) -> pd.DataFrame:
    return pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=COLUMNS)


def _has(table: pd.DataFrame, finalist: Finalist, seed: int) -> bool:
    same = (table["trial"] == finalist.trial) & (table["epochs"] == finalist.epochs) & (table["seed"] == seed)
    return bool(same.any())
