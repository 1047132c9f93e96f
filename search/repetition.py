"""A finalist's training with another seed, on Ray."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from search.config import Config
from search.finalists import Finalist
from search.folder import read_settings
from search.results import Run
from trainable.settings import TrialSettings

Repetition = tuple[Finalist, int]
"""A finalist, and which training of it, counted from 1."""


def repeated(run: Path, number: int, repetition: int) -> TrialSettings:
    """The settings of a trial with another seed; the views stay the same."""
    settings = read_settings(run, number)
    train = settings.train.model_copy(update={"seed": settings.train.seed + repetition})
    return settings.model_copy(update={"train": train, "folder": None})


class RayTrainer:
    """Trains finalists on Ray, as many at a time as trials of the search."""

    def __init__(self, run: Run, config: Config, address: str | None, say: Callable[[str], None]) -> None:
        self._run, self._config, self._address, self._say = run, config, address, say
        self._waiting: dict[Any, tuple[Finalist, int, TrialSettings]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "RayTrainer":
        import ray

        from search.cluster import ray_cluster
        from search.experiment import WORKER_RETRIES
        from trainable.repeat import train_for

        cluster = self._stack.enter_context(ray_cluster(self._address, self._config.resources, self._say))
        self._cluster = cluster()
        cpus, gpus = self._cluster.cpus_per_trial, self._cluster.gpus_per_trial
        self._task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=WORKER_RETRIES)(train_for)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    @property
    def has_room(self) -> bool:
        return len(self._waiting) < self._cluster.concurrency

    def start(self, finalist: Finalist, repetition: int) -> None:
        settings = repeated(self._run.folder, finalist.trial, repetition)
        self._waiting[self._task.remote(settings, finalist.epochs)] = finalist, repetition, settings

    def wait(self) -> tuple[Repetition, dict[str, object]]:
        """The next one that ends, and its row."""
        import ray

        [done], _ = ray.wait(list(self._waiting))
        finalist, repetition, settings = self._waiting.pop(done)
        row = _row(finalist, settings, ray.get(done), self._run.metric)
        outcome = row["reason"] or f"{self._run.metric} {row['score']:.4f}"
        self._say(f"finalists: {finalist.name}, {finalist.epochs} epochs, seed {row['seed']}: {outcome}")
        return (finalist, repetition), row

    def give_up(self, finalist: Finalist, repetition: int) -> bool:
        """End a training, without a row; False where it has just ended, and so will have one."""
        import ray

        task = next(task for task, one in self._waiting.items() if one[:2] == (finalist, repetition))
        if ray.wait([task], timeout=0)[0]:
            return False
        ray.cancel(task)
        _, _, settings = self._waiting.pop(task)
        self._say(f"finalists: {finalist.name}, seed {settings.train.seed}: given up, as it can win no more")
        return True


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
