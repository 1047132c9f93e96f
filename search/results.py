"""A run's folder as tables: written from the study, read by everyone else."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from trainable.errors import InputError
from trainable.settings import EPOCH_METRICS, METRICS, across_folds
from trainable.whole import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRIALS, CURVES = "trials.csv", "curves.csv"


@dataclass(frozen=True)
class Run:
    """A run as it lies on disk."""

    folder: Path
    trials: pd.DataFrame
    """A row a trial: trial, state, value (the search's metric at the best epoch), best_epoch, epochs, folds (that the
    metrics are means of; only where there are any), first, the parameters, the metrics at the best epoch, seconds,
    node, reason."""
    curves: pd.DataFrame
    """A row a trial and epoch: trial, epoch, and the metrics; with folds, their means over the trial's whole folds."""
    parameters: tuple[str, ...]
    """The columns of ``trials`` that hold the searched settings."""

    metric: str
    """The one that the search optimised, of ``METRICS``."""

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {state}" for state, n in self.trials["state"].value_counts().items())
        best = f"; best: trial {self.best}, {self.metric} {self.score(self.best):.4f}" if self.ranked() else ""
        return f"Run({self.folder}: {counts or 'no trials'}{best})"

    @property
    def best(self) -> int:
        """The number of the best complete trial.

        Raises:
            InputError: no trial is complete.
        """
        ranked = self.ranked()
        if not ranked:
            raise InputError(
                f"there must be a complete trial to report on; {self.folder} has none yet. Go on with "
                f"--resume {self.folder}"
            )
        return ranked[0]

    def ranked(self, *, pruned: bool = False) -> list[int]:
        """The numbers of the complete trials, the best first: by the metric at their best epoch, then the lower loss,
        then the shorter time.

        Args:
            pruned: whether those that were stopped early count, too, by the epochs that they had.
        """
        state = self.trials["state"]
        # A trial that was cut off by a crash went on since its row was written.
        ended = (self.trials["epochs"] > 0) & (state != "RUNNING")
        rows = self.trials[ended if pruned else state == "COMPLETE"]
        ascending = [METRICS[self.metric] == "minimize", True, True]
        numbers: list[int] = rows.sort_values([self.metric, "val_loss", "seconds"], ascending=ascending)[
            "trial"
        ].tolist()
        return numbers

    def score(self, number: int) -> float:
        """The metric of a trial at its best epoch."""
        return float(self.row(number)[self.metric])

    def plot_curves(self) -> "Figure":
        """The learning curves of all trials, the best one's marked."""
        return self._plot("curves")

    def plot_history(self) -> "Figure":
        """The score of each trial, in their order."""
        return self._plot("history")

    def plot_parallel(self) -> "Figure":
        """Configurations and their scores, on parallel axes."""
        return self._plot("parallel")

    def plot_slices(self) -> "Figure":
        """The score against each parameter."""
        return self._plot("slices")

    def _plot(self, name: str) -> "Figure":
        from search.figures import draw_trials

        return draw_trials(self, name)

    def row(self, number: int) -> "pd.Series[Any]":
        """The row of a trial in ``trials``."""
        return self.trials[self.trials["trial"] == number].iloc[0]


def write_tables(
    folder: Path, rows: Sequence[dict[str, Any]], curves: Sequence[dict[str, Any]], parameters: Sequence[str]
) -> None:
    """Write ``trials.csv`` and ``curves.csv``, each whole or not at all."""
    folds = any("fold" in row for row in curves)
    columns = [
        "trial",
        "state",
        "value",
        "best_epoch",
        "epochs",
        *(["folds"] if folds else []),
        "first",
        *parameters,
        *_METRIC_COLUMNS,
        "seconds",
        "node",
        "reason",
    ]
    write_table(pd.DataFrame(rows, columns=columns), folder / TRIALS)
    names = ["trial", *(["fold"] if folds else []), *EPOCH_METRICS]
    write_table(pd.DataFrame(curves, columns=names), folder / CURVES)


def load_run(folder: Path | str) -> Run:
    """Read a run's folder.

    Raises:
        InputError: it is not a run's folder, or no trial has been recorded.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise InputError(f"RUN must be the folder of a run, with a config.yaml in it; got {folder}")
    try:
        trials, curves = (pd.read_csv(folder / name) for name in (TRIALS, CURVES))
    except FileNotFoundError as error:
        raise InputError(f"{folder} has no {error.filename} yet: its search has not got as far") from error
    names = list(trials.columns)
    parameters = names[names.index("first") + 1 : names.index(_METRIC_COLUMNS[0])]
    metric = yaml.safe_load((folder / "config.yaml").read_text())["search"]["metric"]
    return Run(folder, trials, _across_folds(curves), tuple(parameters), metric)


_METRIC_COLUMNS = [name for name in EPOCH_METRICS if name not in ("epoch", "lr", "epoch_time_s", "images_per_s")]


def _across_folds(curves: pd.DataFrame) -> pd.DataFrame:
    if "fold" not in curves:
        return curves
    histories = (
        [{str(name): value for name, value in row.items()} for row in own.to_dict("records")]
        for _, own in curves.groupby("trial")
    )
    means = [mean for history in histories for mean in across_folds(history)]
    return pd.DataFrame(means, columns=curves.columns.drop("fold")).astype({"trial": int, "epoch": int})


def write_table(table: pd.DataFrame, file: Path) -> None:
    """Write a table as CSV; the file is whole or not there."""
    with written_whole(file) as draft:
        table.to_csv(draft, index=False, errors="surrogateescape")  # names of files need not be text
